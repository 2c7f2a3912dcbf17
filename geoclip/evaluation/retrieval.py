"""Nearest neighbours of images in a gallery, in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from geoclip.evaluation.block_maxima import BLOCK, block_maxima

FEW = 16  # images
PART = 1000  # locations
HALF_FROM = 1_000_000  # locations on a GPU that are searched in half precision first
IMAGES_AT_ONCE = 8192  # of such a search
IMAGES_RESCORED = 512  # at a time
SPARE_BLOCKS = 4  # beyond k: half precision may rank the last of the k best somewhat lower


@torch.inference_mode()
def nearest_in_gallery(
    image_ND: Tensor, gallery_GD: Tensor, k: int, *, images_per_chunk: int = 512, places_per_chunk: int = 65_536
) -> tuple[Tensor, Tensor]:
    """The k locations of highest cosine similarity for every image.

    Args:
        image_ND: (N, D) unit vectors.
        gallery_GD: (G, D) unit vectors on the same device. On a GPU, HALF_FROM and more are first searched in
            half precision; the best, and their similarities, are then found by float32. So is a float16 gallery.
        k: at most G.
        images_per_chunk: rows of the score matrix that exist at a time.
        places_per_chunk: columns of the score matrix that exist at a time.

    Returns:
        (N, k) cosine similarities, highest first, and (N, k) rows of the gallery; of equally similar places the
        one that stands first in the gallery comes first. The full (N, G) matrix is never held.

    Raises:
        ValueError: k is larger than the gallery, or smaller than 1.
    """
    places = gallery_GD.shape[0]
    if not 1 <= k <= places:
        raise ValueError(f"k={k} must lie in 1 … {places}, the size of the gallery")
    if gallery_GD.dtype == torch.float16 or (gallery_GD.is_cuda and places >= HALF_FROM):
        half_GD, scores, rows = gallery_GD.half(), [], []
        for images in image_ND.split(IMAGES_AT_ONCE):
            score, row = _rescored(images, gallery_GD, shortlist(images, half_GD, k), k)
            scores.append(score)
            rows.append(row)
        if scores:
            return torch.cat(scores), torch.cat(rows)
    scores, rows = [], []
    for images in image_ND.split(images_per_chunk):
        best = torch.empty((len(images), 0), device=images.device)
        best_row = torch.empty((len(images), 0), dtype=torch.long, device=images.device)
        for first in range(0, places, places_per_chunk):
            score = cosines(images, gallery_GD[first : first + places_per_chunk])
            top, row = highest(score, min(k, score.shape[1]))
            # Earlier chunks stand first, and a stable sort keeps them there: of equals the lower row wins.
            best, order = torch.cat((best, top), dim=1).sort(dim=1, descending=True, stable=True)
            best_row = torch.cat((best_row, row + first), dim=1).gather(1, order)
            best, best_row = best[:, :k], best_row[:, :k]
        scores.append(best)
        rows.append(best_row)
    if not scores:
        return image_ND.new_empty((0, k)), torch.empty((0, k), dtype=torch.long, device=image_ND.device)
    return torch.cat(scores), torch.cat(rows)


def shortlist(image_ND: Tensor, half_GD: Tensor, k: int) -> Tensor:
    """(N, R) rows of a half-precision gallery, ascending, that the k best of every image are among.

    Only the highest score of each block of neighbouring rows is kept: the k best rows are in the k blocks of highest
    maximum, and SPARE_BLOCKS more make up for the rounding of the scores. The rows after the last whole tile are in it.
    """
    maximum_NP = block_maxima(image_ND.half(), half_GD)
    whole = maximum_NP.shape[1] * BLOCK
    rest = torch.arange(whole, len(half_GD), device=half_GD.device).expand(len(image_ND), -1)
    block_NS = maximum_NP.topk(min(k + SPARE_BLOCKS, maximum_NP.shape[1]), dim=1).indices
    inside = torch.arange(BLOCK, device=half_GD.device)
    return torch.cat(((block_NS[:, :, None] * BLOCK + inside).flatten(1), rest), dim=1).sort(dim=1).values


def _rescored(image_ND: Tensor, gallery_GD: Tensor, candidate_NR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of every image's candidates by float32 cosines; of equals the lower row, which comes first."""
    scores, rows = [], []
    for images, candidates in zip(image_ND.split(IMAGES_RESCORED), candidate_NR.split(IMAGES_RESCORED), strict=True):
        score_BR = (gallery_GD[candidates].float() @ images[:, :, None].float()).squeeze(2)
        score, column = highest(score_BR, k)
        scores.append(score)
        rows.append(candidates.gather(1, column))
    return torch.cat(scores), torch.cat(rows)


def cosines(image_ND: Tensor, gallery_GD: Tensor) -> Tensor:
    """(N, G) cosine similarities of (N, D) and (G, D) unit vectors on the same device.

    On a processor PyTorch multiplies a long matrix with one or a few vectors on a single thread. So few images are
    compared with many parts of the gallery as one batched product, which runs at the speed of the memory.
    """
    parts = len(gallery_GD) // PART
    if gallery_GD.device.type != "cpu" or parts < 2 or not 1 <= len(image_ND) <= FEW:
        return image_ND @ gallery_GD.T
    whole = parts * PART
    part_PGD = gallery_GD[:whole].unflatten(0, (parts, PART))
    score_GN = (part_PGD @ image_ND.T.expand(parts, -1, -1)).flatten(0, 1)
    return torch.cat((score_GN, gallery_GD[whole:] @ image_ND.T)).T.contiguous()


def highest(score_NG: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of every row and their columns; of equals the lower column, which `topk` leaves to chance."""
    if k == 1:
        top, column = score_NG.max(dim=1, keepdim=True)  # gives the first of equals
        return top, column
    top, column = score_NG.topk(min(k + 1, score_NG.shape[1]), dim=1)
    tied = (top[:, 1:] == top[:, :-1]).any(dim=1)
    top, column = top[:, :k], column[:, :k]
    if tied.any():  # the gallery holds a place twice
        column[tied] = _first_of_equals(score_NG[tied], top[tied, -1:], k)
    return top, column


def _first_of_equals(score_NG: Tensor, lowest_N1: Tensor, k: int) -> Tensor:
    """(N, k) columns by score, then by column. `lowest_N1` is every row's k-th highest score."""
    row, column = (score_NG >= lowest_N1).nonzero(as_tuple=True)  # by row, then by column
    order = score_NG[row, column].argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row_starts = torch.searchsorted(row, torch.arange(len(score_NG), device=row.device))
    place_in_row = torch.arange(len(row), device=row.device) - row_starts[row]
    return column[order][place_in_row < k].reshape(-1, k)
