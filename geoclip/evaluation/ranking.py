"""What the whole softmax over a gallery says of each image: its best places, and how sure it is of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from geoclip.evaluation.accuracy import THRESHOLDS_KM, Floats, on_sphere, pairs_around
from geoclip.evaluation.protocols import distance_km, within
from geoclip.evaluation.retrieval import highest
from geoclip.evaluation.significance import Interval, share_interval
from geoclip.geo.geodesy import EARTH_RADIUS_KM

RECALL_RANKS = (1, 5, 10)
MASS_KM = (25, 200)  # a city and a region: around these distances confidence is asked for
SCORES_AT_ONCE = 8_000_000  # of the score matrix: 32 MB

Rows = NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class Ranking:
    """One row per image; numbers have no more digits than files do."""

    row_Nk: Tensor  # the best places of the gallery, best first
    cosine_Nk: Tensor
    probability_N: Floats  # of the best place
    mass_km_N: dict[int, Floats]  # probability of all places within so many km of the best, itself included
    nll_N: Floats  # nats, of the place nearest to the truth


@torch.inference_mode()
def rank_gallery(
    image_ND: Tensor,
    gallery_GD: Tensor,
    gallery_deg_G2: Floats,
    nearest_row_N: Rows,
    scale: float,
    k: int = max(RECALL_RANKS),
) -> Ranking:
    """The k best places of every image, and the softmax of scale · cosine over the gallery where it is asked for.

    Args:
        image_ND: (N, D) unit vectors.
        gallery_GD: (G, D) unit vectors on the same device.
        gallery_deg_G2: (G, 2) degrees.
        nearest_row_N: the gallery's place nearest to each truth. One that stands there several times has the
            probability of all of them.
        scale: exp of the logit scale.
        k: of a smaller gallery, all places.

    Returns:
        The ranking; of equals the lower row comes first. No more than SCORES_AT_ONCE scores are held.
    """
    tree = cKDTree(on_sphere(gallery_deg_G2))
    _, place_G, count_P = np.unique(gallery_deg_G2, axis=0, return_inverse=True, return_counts=True)
    copies_N = count_P[place_G.reshape(-1)][nearest_row_N]
    nearest_N1 = torch.from_numpy(nearest_row_N)[:, None].to(gallery_GD.device)
    count, k = len(image_ND), min(k, len(gallery_GD))
    row_Nk, cosine_Nk = torch.empty((count, k), dtype=torch.long), torch.empty((count, k))
    probability_N, nll_N, mass_RN = np.empty(count), np.empty(count), np.empty((len(MASS_KM), count))
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))
    scores = gallery_GD.new_empty(
        (min(at_once, count), len(gallery_GD))
    )  # one for all: a heap full of holes is no less
    for first in range(0, count, at_once):
        rows = slice(first, min(first + at_once, count))
        score_BG = torch.matmul(image_ND[rows], gallery_GD.T, out=scores[: rows.stop - first])
        cosine_Bk, row_Bk = highest(score_BG, k)
        nearest_B = scale * (cosine_Bk[:, 0] - score_BG.gather(1, nearest_N1[rows])[:, 0]).double()
        odds_BG = score_BG.sub_(cosine_Bk[:, :1]).mul_(scale).exp_()  # against the best place
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
    """What float32 scores, whose last digits depend on the batch, tell of a probability."""
    return np.array([float(f"{probability:.4g}") for probability in probability_N])


def _odds_around(odds_BG: Tensor, best_B: Rows, tree: cKDTree) -> Floats:
    """(R, B) sum over the places within each of MASS_KM of the best, on the sphere."""
    guess_B3 = tree.data[best_B]
    chords = [2 * np.sin(km / EARTH_RADIUS_KM / 2) for km in MASS_KM]
    image_P, place_P = pairs_around(tree, guess_B3, np.full(len(best_B), max(chords)))
    flat_P = torch.from_numpy(image_P * odds_BG.shape[1] + place_P)
    odds_P = odds_BG.view(-1)[flat_P.to(odds_BG.device)].cpu().numpy()
    chord_P = np.sqrt(((guess_B3[image_P] - tree.data[place_P]) ** 2).sum(axis=1))
    sums = [np.bincount(image_P, odds_P * (chord_P <= chord), minlength=len(best_B)) for chord in chords]
    return np.stack(sums)


def best_of_km(row_Nk: Tensor, gallery_deg_G2: Floats, truth_deg_N2: Floats, protocol: str = "sphere") -> Floats:
    """(N, k) distance in km from the truth to the nearest of the first 1 … k guesses."""
    count, k = row_Nk.shape
    guesses_M2 = gallery_deg_G2[row_Nk.reshape(-1).numpy()]
    km_M = distance_km(guesses_M2, np.repeat(truth_deg_N2, k, axis=0), protocol)
    nearest: Floats = np.minimum.accumulate(km_M.reshape(count, k), axis=1)
    return nearest


def recall(best_of_km_Nk: Floats, protocol: str = "sphere") -> dict[int, dict[int, Interval]]:
    """Share of images, in percent, for which one of the first 1, 5, 10 guesses lies within each distance.

    Args:
        best_of_km_Nk: as `best_of_km` gives it; of fewer guesses, all count.
        protocol: whether an error of exactly a distance lies within it.
    """
    last = best_of_km_Nk.shape[1] - 1
    return {
        rank: {km: share_interval(within(best_of_km_Nk[:, min(rank - 1, last)], km, protocol)) for km in THRESHOLDS_KM}
        for rank in RECALL_RANKS
    }
