"""Nearest neighbours of images in a gallery, in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 16  # images
PART = 1000  # places


@torch.inference_mode()
def nearest_in_gallery(
    image_ND: Tensor,
    gallery_GD: Tensor,
    k: int,
    *,
    images_per_chunk: int = 512,
    places_per_chunk: int = 65_536,
) -> tuple[Tensor, Tensor]:
    """The k places of highest cosine similarity for every image.

    Args:
        image_ND: (N, D) unit vectors.
        gallery_GD: (G, D) unit vectors on the same device.
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
