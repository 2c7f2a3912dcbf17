"""Retrieval from a gallery: embedded images, the most similar locations, their probabilities, and the ranking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport
from geoclip.errors import DataError
from geoclip.evaluation.metrics import THRESHOLDS_KM, Floats, distance_km, on_sphere, pairs_around, within
from geoclip.evaluation.significance import Interval, share_interval
from geoclip.geo.geodesy import EARTH_RADIUS_KM
from geoclip.model.geoclip import GeoCLIP

BLOCK = 64  # neighbouring rows of the gallery
TILE = 256  # rows per program of the kernel
CHUNK = 8192  # rows at a time without the kernel
FEW = 16  # images: so few are compared with parts of the gallery, see `cosines`
PART = 1000  # locations in such a part
HALF_FROM = 1_000_000  # locations: larger galleries on a GPU are searched in half precision first
IMAGES_AT_ONCE = 8192  # in a search in half precision
IMAGES_RESCORED = 512  # compared in float32 at a time
SPARE_BLOCKS = 4  # blocks searched beyond k, because rounding to half precision changes the order
RECALL_RANKS = (1, 5, 10)
MASS_KM = (25, 200)  # a city and a region: the distances that confidence is reported for
SCORES_AT_ONCE = 8_000_000  # entries of the score matrix: 32 MB

Rows = NDArray[np.int64]


def block_maxima(image_ND: Tensor, gallery_GD: Tensor) -> Tensor:
    """(N, P) float32 highest product of every image with the rows of each block, P = 4 · (G // 256).

    Block p has rows 64 p … 64 p + 63. The last G % 256 rows are in no block.

    Args:
        image_ND: (N, D) float16.
        gallery_GD: (G, D) float16 on the same device, contiguous.
    """
    covered = len(gallery_GD) // TILE * TILE
    maximum_NP = image_ND.new_empty((len(image_ND), covered // BLOCK), dtype=torch.float32)
    if covered and len(image_ND) and image_ND.is_cuda and image_ND.shape[1] % 64 == 0 and find_spec("triton"):
        from geoclip.evaluation.block_maxima_kernel import launch

        launch(image_ND.contiguous(), gallery_GD[:covered].contiguous(), maximum_NP, BLOCK, TILE)
        return maximum_NP
    for first in range(0, covered, CHUNK):
        score_NC = (image_ND @ gallery_GD[first : min(first + CHUNK, covered)].T).float()
        blocks = slice(first // BLOCK, (first + score_NC.shape[1]) // BLOCK)
        torch.amax(score_NC.unflatten(1, (-1, BLOCK)), dim=2, out=maximum_NP[:, blocks])
    return maximum_NP


@torch.inference_mode()
def nearest_in_gallery(
    image_ND: Tensor, gallery_GD: Tensor, k: int, *, images_per_chunk: int = 512, locations_per_chunk: int = 65_536
) -> tuple[Tensor, Tensor]:
    """The k locations of highest cosine similarity for every image.

    A float16 gallery, or one of HALF_FROM locations or more on a GPU, is first searched in half precision. The best
    candidates are then compared in float32.

    Args:
        image_ND: (N, D) unit vectors.
        gallery_GD: (G, D) unit vectors on the same device.
        k: at most G.
        images_per_chunk: rows of the score matrix at a time.
        locations_per_chunk: columns of the score matrix at a time.

    Returns:
        (N, k) cosine similarities, highest first, and (N, k) rows of the gallery; of equally similar locations the
        lower row comes first.

    Raises:
        ValueError: k is larger than the gallery, or smaller than 1.
    """
    if not 1 <= k <= len(gallery_GD):
        raise ValueError(f"k={k} must be in 1 … {len(gallery_GD)}, the size of the gallery")
    if gallery_GD.dtype == torch.float16 or (gallery_GD.is_cuda and len(gallery_GD) >= HALF_FROM):
        half_GD = gallery_GD.half()
        parts = [
            _rescore(images, gallery_GD, shortlist(images, half_GD, k), k) for images in image_ND.split(IMAGES_AT_ONCE)
        ]
    else:
        parts = [_search(images, gallery_GD, k, locations_per_chunk) for images in image_ND.split(images_per_chunk)]
    scores, rows = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(rows)


def _search(image_ND: Tensor, gallery_GD: Tensor, k: int, locations_per_chunk: int) -> tuple[Tensor, Tensor]:
    best = torch.empty((len(image_ND), 0), device=image_ND.device)
    best_row = torch.empty((len(image_ND), 0), dtype=torch.long, device=image_ND.device)
    for first in range(0, len(gallery_GD), locations_per_chunk):
        score = cosines(image_ND, gallery_GD[first : first + locations_per_chunk])
        top, row = highest(score, min(k, score.shape[1]))
        # Earlier chunks are first, and the sort is stable: of equals the lower row stays first.
        best, order = torch.cat((best, top), dim=1).sort(dim=1, descending=True, stable=True)
        best_row = torch.cat((best_row, row + first), dim=1).gather(1, order)
        best, best_row = best[:, :k], best_row[:, :k]
    return best, best_row


def shortlist(image_ND: Tensor, half_GD: Tensor, k: int) -> Tensor:
    """(N, R) ascending rows of a half-precision gallery that contain the k best of every image.

    The k best rows are in the k blocks of highest maximum; SPARE_BLOCKS more allow for rounding. The rows that are in
    no block are always included.
    """
    maximum_NP = block_maxima(image_ND.half(), half_GD)
    covered = maximum_NP.shape[1] * BLOCK
    rest = torch.arange(covered, len(half_GD), device=half_GD.device).expand(len(image_ND), -1)
    block_NS = maximum_NP.topk(min(k + SPARE_BLOCKS, maximum_NP.shape[1]), dim=1).indices
    inside = torch.arange(BLOCK, device=half_GD.device)
    return torch.cat(((block_NS[:, :, None] * BLOCK + inside).flatten(1), rest), dim=1).sort(dim=1).values


def _rescore(image_ND: Tensor, gallery_GD: Tensor, candidate_NR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best candidates of every image by float32 cosines."""
    scores, rows = [], []
    for images, candidates in zip(image_ND.split(IMAGES_RESCORED), candidate_NR.split(IMAGES_RESCORED), strict=True):
        score_BR = (gallery_GD[candidates].float() @ images[:, :, None].float()).squeeze(2)
        score, column = highest(score_BR, k)
        scores.append(score)
        rows.append(candidates.gather(1, column))
    return torch.cat(scores), torch.cat(rows)


def cosines(image_ND: Tensor, gallery_GD: Tensor) -> Tensor:
    """(N, G) cosine similarities of (N, D) and (G, D) unit vectors on the same device.

    On a CPU PyTorch multiplies a long matrix with a few vectors on a single thread. So few images are compared with
    many parts of the gallery as one batched product, which runs at the speed of the memory.
    """
    parts = len(gallery_GD) // PART
    if gallery_GD.device.type != "cpu" or parts < 2 or not 1 <= len(image_ND) <= FEW:
        return image_ND @ gallery_GD.T
    covered = parts * PART
    part_PGD = gallery_GD[:covered].unflatten(0, (parts, PART))
    score_GN = (part_PGD @ image_ND.T.expand(parts, -1, -1)).flatten(0, 1)
    return torch.cat((score_GN, gallery_GD[covered:] @ image_ND.T)).T.contiguous()


def highest(score_NG: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of every row and their columns; of equals the lower column, which `topk` does not guarantee."""
    if k == 1:
        top, column = score_NG.max(dim=1, keepdim=True)  # the first of equals
        return top, column
    top, column = score_NG.topk(min(k + 1, score_NG.shape[1]), dim=1)
    tied = (top[:, 1:] == top[:, :-1]).any(dim=1)
    top, column = top[:, :k], column[:, :k]
    if tied.any():  # the gallery contains a location twice
        column[tied] = _first_of_equals(score_NG[tied], top[tied, -1:], k)
    return top, column


def _first_of_equals(score_NG: Tensor, lowest_N1: Tensor, k: int) -> Tensor:
    """(N, k) columns by score, then by column. `lowest_N1` is the k-th highest score of every row."""
    row, column = (score_NG >= lowest_N1).nonzero(as_tuple=True)  # by row, then by column
    order = score_NG[row, column].argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row_starts = torch.searchsorted(row, torch.arange(len(score_NG), device=row.device))
    rank_in_row = torch.arange(len(row), device=row.device) - row_starts[row]
    return column[order][rank_in_row < k].reshape(-1, k)


@dataclass(kw_only=True, slots=True)
class Ranking:
    """One row per image; numbers are rounded as in the files."""

    row_Nk: Tensor  # the best rows of the gallery, best first
    cosine_Nk: Tensor
    probability_N: Floats  # of the best location
    mass_km_N: dict[int, Floats]  # probability of all locations within so many km of the best, which is included
    nll_N: Floats  # nats, of the location nearest to the truth


@torch.inference_mode()
def rank_gallery(
    image_ND: Tensor,
    gallery_GD: Tensor,
    gallery_deg_G2: Floats,
    nearest_row_N: Rows,
    scale: float,
    k: int = max(RECALL_RANKS),
) -> Ranking:
    """The k best locations of every image, and the softmax of scale · cosine over the gallery.

    Args:
        image_ND: (N, D) unit vectors.
        gallery_GD: (G, D) unit vectors on the same device.
        gallery_deg_G2: (G, 2) degrees.
        nearest_row_N: the row nearest to each truth. A location that the gallery contains several times has the
            probability of all its rows.
        scale: exp of the logit scale.
        k: of a smaller gallery, all locations.

    Returns:
        The ranking; of equals the lower row comes first. SCORES_AT_ONCE limits the memory.
    """
    tree = cKDTree(on_sphere(gallery_deg_G2))
    _, location_G, count_P = np.unique(gallery_deg_G2, axis=0, return_inverse=True, return_counts=True)
    copies_N = count_P[location_G.reshape(-1)][nearest_row_N]
    nearest_N1 = torch.from_numpy(nearest_row_N)[:, None].to(gallery_GD.device)
    count, k = len(image_ND), min(k, len(gallery_GD))
    row_Nk, cosine_Nk = torch.empty((count, k), dtype=torch.long), torch.empty((count, k))
    probability_N, nll_N, mass_RN = np.empty(count), np.empty(count), np.empty((len(MASS_KM), count))
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))
    scores = gallery_GD.new_empty((min(at_once, count), len(gallery_GD)))  # reused, against fragmentation of the heap
    for first in range(0, count, at_once):
        rows = slice(first, min(first + at_once, count))
        score_BG = torch.matmul(image_ND[rows], gallery_GD.T, out=scores[: rows.stop - first])
        cosine_Bk, row_Bk = highest(score_BG, k)
        nearest_B = scale * (cosine_Bk[:, 0] - score_BG.gather(1, nearest_N1[rows])[:, 0]).double()
        odds_BG = score_BG.sub_(cosine_Bk[:, :1]).mul_(scale).exp_()  # relative to the best location
        sum_B = odds_BG.sum(dim=1, dtype=torch.float64)
        row_Nk[rows], cosine_Nk[rows] = row_Bk.cpu(), cosine_Bk.cpu()
        probability_N[rows] = sum_B.reciprocal().cpu().numpy()
        nll_N[rows] = (nearest_B + sum_B.log()).cpu().numpy() - np.log(copies_N[rows])
        mass_RN[:, rows] = _odds_around(odds_BG, row_Bk[:, 0].cpu().numpy(), tree) / sum_B.cpu().numpy()
    return Ranking(
        row_Nk=row_Nk,
        cosine_Nk=cosine_Nk,
        probability_N=_four_digits(probability_N),
        mass_km_N={km: _four_digits(mass_N.clip(max=1.0)) for km, mass_N in zip(MASS_KM, mass_RN, strict=True)},
        nll_N=nll_N.round(3),
    )


def _four_digits(probability_N: Floats) -> Floats:
    """Probabilities without the last digits, which depend on the batch because scores are float32."""
    return np.array([float(f"{probability:.4g}") for probability in probability_N])


def _odds_around(odds_BG: Tensor, best_B: Rows, tree: cKDTree) -> Floats:
    """(R, B) sum over the locations within each of MASS_KM of the best, on the sphere."""
    guess_B3 = tree.data[best_B]
    chords = [2 * np.sin(km / EARTH_RADIUS_KM / 2) for km in MASS_KM]
    image_P, row_P = pairs_around(tree, guess_B3, np.full(len(best_B), max(chords)))
    flat_P = torch.from_numpy(image_P * odds_BG.shape[1] + row_P)
    odds_P = odds_BG.view(-1)[flat_P.to(odds_BG.device)].cpu().numpy()
    chord_P = np.sqrt(((guess_B3[image_P] - tree.data[row_P]) ** 2).sum(axis=1))
    sums = [np.bincount(image_P, odds_P * (chord_P <= chord), minlength=len(best_B)) for chord in chords]
    return np.stack(sums)


def best_of_km(row_Nk: Tensor, gallery_deg_G2: Floats, truth_deg_N2: Floats, protocol: str = "sphere") -> Floats:
    """(N, k) distance in km from the truth to the nearest of the first 1 … k predictions."""
    count, k = row_Nk.shape
    guesses_M2 = gallery_deg_G2[row_Nk.reshape(-1).numpy()]
    km_M = distance_km(guesses_M2, np.repeat(truth_deg_N2, k, axis=0), protocol)
    nearest: Floats = np.minimum.accumulate(km_M.reshape(count, k), axis=1)
    return nearest


def recall(best_of_km_Nk: Floats, protocol: str = "sphere") -> dict[int, dict[int, Interval]]:
    """Share of images, in percent, with one of the first 1, 5, 10 predictions within each distance, by rank and km.

    `best_of_km_Nk` is as from `best_of_km`; of fewer predictions, all count.
    """
    last = best_of_km_Nk.shape[1] - 1
    return {
        rank: {km: share_interval(within(best_of_km_Nk[:, min(rank - 1, last)], km, protocol)) for km in THRESHOLDS_KM}
        for rank in RECALL_RANKS
    }


FEATURES_PER_BATCH = 2048


@dataclass(kw_only=True, slots=True)
class Queries:
    """The images of a benchmark, embedded, and where they were taken."""

    image_ND: Tensor  # unit vectors, float32; of several views, their mean
    gps_deg_N2: Tensor  # float64, as in the data
    keys: list[str]


@dataclass(kw_only=True, slots=True)
class Predictions:
    """One row per image: truth, prediction and error."""

    keys: list[str]
    gps_deg_N2: Tensor
    guess_deg_N2: Tensor
    distance_km_N: Tensor
    ceiling_km_N: Tensor  # from the truth to the nearest location of the gallery: the error of a perfect model
    score_N: Tensor  # cosine similarity
    ranking: Ranking | None = None


def require_finite(image_ND: Tensor, gallery_GD: Tensor) -> None:
    """Raise DataError unless all embeddings are finite numbers."""
    if not (image_ND.isfinite().all() and gallery_GD.isfinite().all()):
        raise DataError("this model's embeddings are not finite numbers: its training diverged; lower optim.lr")


@torch.inference_mode()
def embed_images(
    model: GeoCLIP, batches: Iterable[Batch], device: torch.device, *, total: int | None = None
) -> tuple[Queries, SkipReport]:
    """Embed every image, with a progress bar if `total` is given.

    The embedding of several views is the mean of their unit vectors. It is not normalised again, so that its cosine
    with a location is the mean of the views' cosines.

    Raises:
        DataError: no image is readable.
    """
    model.eval()
    embedded, skipped = list[Batch](), SkipReport()
    with tqdm(total=total, desc="embedding images", unit="image", disable=total is None, mininterval=0.5) as bar:
        for batch in batches:
            skipped.add(batch.skipped)
            if batch.keys:
                embedded.append(replace(batch, images=_embed(model, batch.images, device), skipped=[]))
            bar.update(len(batch.keys))
    if not embedded:
        raise DataError(f"no readable image; {'; '.join(skipped.lines())}")
    found = Batch.cat(embedded)
    return Queries(image_ND=found.images, gps_deg_N2=found.gps_deg_B2, keys=list(found.keys)), skipped


def _embed(model: GeoCLIP, images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) pixels, (B, F) features or (B, V, 3, H, W) views -> (B, D)."""
    if images.ndim != 5:
        return model.encode_image(images.to(device))
    views = [model.encode_image(view_BCHW.to(device)) for view_BCHW in images.unbind(dim=1)]
    return torch.stack(views).mean(dim=0)


@torch.inference_mode()
def embed_features(
    model: GeoCLIP, features_NF: Tensor, gps_deg_N2: Tensor, keys: list[str], device: torch.device
) -> Queries:
    """Embed images whose (N, F) backbone features are known."""
    model.eval()
    rows = [model.encode_features(part.to(device)) for part in features_NF.split(FEATURES_PER_BATCH)]
    return Queries(image_ND=torch.cat(rows), gps_deg_N2=gps_deg_N2, keys=keys)
