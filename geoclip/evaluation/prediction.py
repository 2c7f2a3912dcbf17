"""The best guesses for images and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.refinement import refine_places
from geoclip.evaluation.retrieval import cosines, highest
from geoclip.evaluation.smoothing import smooth_heat
from geoclip.geo.geodesy import EARTH_RADIUS_KM, haversine_km, unit_vectors

SCORES_AT_ONCE = 16_000_000  # of the score matrix: 64 MB
LEAST_REACH_KM = 1.0  # of the refinement's first grid


@dataclass(kw_only=True, slots=True, frozen=True)
class Guess:
    """A location of the gallery, or near one; `rank` 1 is the best."""

    rank: int
    lat: float
    lon: float
    probability: float  # over the whole gallery, of the gallery's location: depends on its size and density
    cosine: float
    distance_km: float | None  # from the truth, where that is known
    gallery_lat: float | None = None  # refined: the gallery's location that it started from
    gallery_lon: float | None = None

    @property
    def map(self) -> str:
        """A link to the location on a map."""
        return f"https://www.google.com/maps?q={self.lat:.6f},{self.lon:.6f}"


@dataclass(kw_only=True, slots=True, frozen=True)
class QueryResult:
    """The prediction for one image or text."""

    guesses: list[Guess]  # best first
    heat_G: NDArray[np.float32]  # (G,) of the gallery's locations; sums to 1


@dataclass(kw_only=True, slots=True, frozen=True)
class GuessSettings:
    """How guesses are drawn from the gallery.

    Attributes:
        scale: that similarities are multiplied by before the softmax: exp of the logit scale, or calibrated.
        k: guesses; of a smaller gallery, all locations.
        smooth_km: standard deviation of the heat's smoothing; 0: none.
        refine_m: spacing that guesses are refined to; None: they are locations of the gallery.
    """

    scale: float
    k: int
    smooth_km: float = 0.0
    refine_m: float | None = None


@torch.inference_mode()
def guess_locations(
    image_ND: Tensor,
    truth_deg: list[tuple[float, float] | None],
    gallery: Gallery,
    gallery_GD: Tensor,
    encode_location: Callable[[Tensor], Tensor],
    settings: GuessSettings,
) -> Iterator[QueryResult]:
    """The best locations for each query, a batch of queries at a time.

    Args:
        image_ND: (N, D) unit vectors of images or texts.
        truth_deg: where each was taken, if that is known; used for `distance_km` alone.
        gallery: coordinates.
        gallery_GD: (G, D) their embeddings, on the same device.
        encode_location: (M, 2) degrees -> (M, D) embeddings, for the refinement.
        settings: how guesses are drawn.
    """
    places_G2 = gallery.gps_deg_G2.numpy()
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))
    for first in range(0, len(image_ND), at_once):
        image_BD = image_ND[first : first + at_once]
        cosine_BG = cosines(image_BD, gallery_GD)
        heat_BG = (settings.scale * cosine_BG).softmax(dim=1)
        if settings.smooth_km > 0:
            smoothed = smooth_heat(heat_BG.cpu().numpy(), places_G2, settings.smooth_km)
            heat_BG = torch.from_numpy(smoothed.astype(np.float32)).to(image_BD.device)
        ranked_BG = heat_BG if settings.smooth_km > 0 else cosine_BG  # a sharp softmax ties what the cosine tells apart
        _, row_Bk = highest(ranked_BG, min(settings.k, len(gallery_GD)))
        probability_Bk, cosine_Bk = heat_BG.gather(1, row_Bk).cpu(), cosine_BG.gather(1, row_Bk).cpu()
        start_Bk2 = gallery.gps_deg_G2[row_Bk.cpu()]
        guess_Bk2 = start_Bk2
        if settings.refine_m is not None:
            guess_Bk2, cosine_Bk = refine_places(
                image_BD,
                start_Bk2,
                encode_location,
                reach_km_NK=_local_spacing_km(places_G2, start_Bk2),
                step_m=settings.refine_m,
            )
        for row, heat_G in enumerate(heat_BG.cpu().numpy()):
            guesses = _guesses(
                guess_Bk2[row],
                start_Bk2[row] if settings.refine_m is not None else None,
                probability_Bk[row],
                cosine_Bk[row],
                truth_deg[first + row],
            )
            yield QueryResult(guesses=guesses, heat_G=heat_G)


def _guesses(
    guess_k2: Tensor,
    start_k2: Tensor | None,
    probability_k: Tensor,
    cosine_k: Tensor,
    truth_deg: tuple[float, float] | None,
) -> list[Guess]:
    """The guesses for one query, in the order of the heat; refined ones in that of their similarity."""
    order = torch.arange(len(guess_k2)) if start_k2 is None else cosine_k.argsort(descending=True, stable=True)
    distance_k = None
    if truth_deg is not None:
        distance_k = haversine_km(guess_k2, torch.tensor([truth_deg], dtype=torch.float64)).tolist()
    return [
        Guess(
            rank=rank,
            lat=float(guess_k2[row, 0]),
            lon=float(guess_k2[row, 1]),
            probability=float(probability_k[row]),
            cosine=float(cosine_k[row]),
            distance_km=None if distance_k is None else distance_k[row],
            gallery_lat=None if start_k2 is None else float(start_k2[row, 0]),
            gallery_lon=None if start_k2 is None else float(start_k2[row, 1]),
        )
        for rank, row in enumerate(order.tolist(), start=1)
    ]


def _local_spacing_km(places_G2: NDArray[np.float64], start_Bk2: Tensor) -> Tensor:
    """(B, k) km from each of these locations to the gallery's next one."""
    tree = cKDTree(unit_vectors(torch.from_numpy(np.unique(places_G2, axis=0))).numpy())
    start = unit_vectors(start_Bk2.reshape(-1, 2)).numpy()
    chord_M2, _ = tree.query(start, k=2)
    spacing = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord_M2[:, 1] / 2, 0, 1))  # of a single location: half the Earth
    return torch.from_numpy(spacing).clamp(min=LEAST_REACH_KM).view(start_Bk2.shape[:2])
