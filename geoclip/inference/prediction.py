"""Predictions for images or texts: locations and their probabilities, smoothed, refined, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.retrieval import cosines, highest
from geoclip.geo.geodesy import EARTH_RADIUS_KM, destination, haversine_km, unit_vectors

Floats = NDArray[np.float64]

REACH = 3.0  # standard deviations: farther away, a Gaussian has less than 1.2 % of its height
LOCATIONS_PER_CHUNK = 512
SCORES_AT_ONCE = 16_000_000  # entries of the score matrix: 64 MB
HALF = 4  # the refinement's grid has 2 · HALF + 1 points a side, and each grid is HALF times finer than the last
LEAST_REACH_KM = 1.0  # smallest extent of the refinement's first grid


def smooth_heat(heat_NG: NDArray[np.float32], gallery_deg_G2: Floats, smooth_km: float) -> Floats:
    """(N, G) Gaussian-weighted sum of the heat around each location of the gallery, scaled to sum to 1.

    Many likely locations near each other get more than a likelier one far from all others.

    Args:
        heat_NG: (N, G) probabilities over the gallery.
        gallery_deg_G2: (G, 2) latitude, longitude in degrees.
        smooth_km: standard deviation along great circles; the Gaussian is cut off at three of them.

    Source: kernel density estimation, Silverman, "Density Estimation for Statistics and Data Analysis", 1986, ch. 4.
    """
    points = unit_vectors(torch.from_numpy(gallery_deg_G2)).numpy()
    tree = cKDTree(points)
    longest = 2 * np.sin(min(REACH * smooth_km / EARTH_RADIUS_KM, np.pi) / 2)
    smoothed = np.empty((heat_NG.shape[0], len(points)))
    for first in range(0, len(points), LOCATIONS_PER_CHUNK):
        chunk = points[first : first + LOCATIONS_PER_CHUNK]
        weights = cKDTree(chunk).sparse_distance_matrix(tree, longest, output_type="coo_matrix").tocsr()
        # Chords to arcs to weights; the distance 0 to itself is stored too.
        arc_km = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(weights.data / 2, 0, 1))
        weights.data = np.exp(-0.5 * (arc_km / smooth_km) ** 2)
        smoothed[:, first : first + len(chunk)] = (weights @ heat_NG.T).T
    total: Floats = smoothed / smoothed.sum(axis=1, keepdims=True)
    return total


@torch.inference_mode()
def refine_locations(
    image_ND: Tensor,
    start_deg_NK2: Tensor,
    encode_location: Callable[[Tensor], Tensor],
    *,
    reach_km_NK: Tensor,
    step_m: float,
) -> tuple[Tensor, Tensor]:
    """Search around each starting location for the one of highest similarity to the image.

    The first square grid is around the start. Each next one is around the best point so far, with a quarter of the
    spacing, until that is `step_m`. A grid contains its centre, so the similarity never falls. The result is a local
    maximum; the encoder's finest sigma limits its accuracy.

    Args:
        image_ND: (N, D) unit vectors.
        start_deg_NK2: (N, K, 2) latitude, longitude in degrees.
        encode_location: (M, 2) degrees -> (M, D) embeddings.
        reach_km_NK: (N, K) half the side of the first grid.
        step_m: spacing of the last grid, in metres.

    Returns:
        (N, K, 2) locations in degrees, float64, and (N, K) their cosine similarities.
    """
    count, guesses = start_deg_NK2.shape[:2]
    location_M2 = start_deg_NK2.reshape(-1, 2).double()
    image_MD = image_ND.repeat_interleave(guesses, dim=0)
    spacing_km_M = reach_km_NK.reshape(-1).double() / HALF
    best_M = torch.full((len(location_M2),), -math.inf)
    coarsest_m = 1000 * float(spacing_km_M.max()) if len(spacing_km_M) else step_m
    levels = max(1, math.ceil(math.log(max(coarsest_m / step_m, 1), HALF)) + 1)
    offset = torch.arange(-HALF, HALF + 1, dtype=torch.float64)
    east_P, north_P = (one.reshape(-1) for one in torch.meshgrid(offset, offset, indexing="xy"))
    distance_P, azimuth_P = (east_P**2 + north_P**2).sqrt(), torch.atan2(east_P, north_P)
    for _ in range(levels):
        arc_MP = spacing_km_M[:, None] * distance_P / EARTH_RADIUS_KM
        from_Q2, azimuth_Q = location_M2.repeat_interleave(len(distance_P), dim=0), azimuth_P.repeat(len(location_M2))
        around = destination(from_Q2, arc_MP.reshape(-1), azimuth_Q).view(len(location_M2), -1, 2)
        points = around.reshape(-1, 2).float().to(image_ND.device)
        embedded = torch.cat([F.normalize(encode_location(part).float(), dim=1) for part in points.split(2048)])
        cosine_MP = torch.einsum("md,mpd->mp", image_MD, embedded.view(len(location_M2), len(distance_P), -1)).cpu()
        best_M, point_M = cosine_MP.max(dim=1)
        location_M2 = around[torch.arange(len(location_M2)), point_M]
        spacing_km_M = (spacing_km_M / HALF).clamp(min=step_m / 1000)
    return location_M2.view(count, guesses, 2), best_M.view(count, guesses)


@dataclass(kw_only=True, slots=True, frozen=True)
class Guess:
    """One predicted location; `rank` 1 is the best."""

    rank: int
    lat: float
    lon: float
    probability: float  # of the gallery's location, over the gallery: depends on its size and density
    cosine: float
    distance_km: float | None  # from the truth, if known
    gallery_lat: float | None = None  # if refined: where it started
    gallery_lon: float | None = None

    @property
    def map(self) -> str:
        """A link to the location on a map."""
        return f"https://www.google.com/maps?q={self.lat:.6f},{self.lon:.6f}"


@dataclass(kw_only=True, slots=True, frozen=True)
class QueryResult:
    """The prediction for one image or text."""

    guesses: list[Guess]  # best first
    heat_G: NDArray[np.float32]  # (G,) probabilities; sums to 1


@dataclass(kw_only=True, slots=True, frozen=True)
class GuessSettings:
    """How locations are chosen from the gallery."""

    scale: float  # of similarities before the softmax: exp of the logit scale, or calibrated
    k: int  # locations; of a smaller gallery, all
    smooth_km: float = 0.0  # standard deviation of the smoothing; 0: none
    refine_m: float | None = None  # spacing of the refinement; None: none


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

    `image_ND` are unit vectors of images or texts, `gallery_GD` those of the gallery, on the same device. `truth_deg`,
    if known, is only for `distance_km`; `encode_location`, (M, 2) degrees -> (M, D), only for the refinement.
    """
    locations_G2 = gallery.gps_deg_G2.numpy()
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))
    for first in range(0, len(image_ND), at_once):
        image_BD = image_ND[first : first + at_once]
        cosine_BG = cosines(image_BD, gallery_GD)
        heat_BG = (settings.scale * cosine_BG).softmax(dim=1)
        ranked_BG = cosine_BG  # not the heat: a sharp softmax has ties
        if settings.smooth_km > 0:
            smoothed = smooth_heat(heat_BG.cpu().numpy(), locations_G2, settings.smooth_km)
            ranked_BG = heat_BG = torch.from_numpy(smoothed.astype(np.float32)).to(image_BD.device)
        _, row_Bk = highest(ranked_BG, min(settings.k, len(gallery_GD)))
        probability_Bk, cosine_Bk = heat_BG.gather(1, row_Bk).cpu(), cosine_BG.gather(1, row_Bk).cpu()
        start_Bk2 = guess_Bk2 = gallery.gps_deg_G2[row_Bk.cpu()]
        if settings.refine_m is not None:
            reach_km_Bk = _local_spacing_km(locations_G2, start_Bk2)
            guess_Bk2, cosine_Bk = refine_locations(
                image_BD, start_Bk2, encode_location, reach_km_NK=reach_km_Bk, step_m=settings.refine_m
            )
        for row, heat_G in enumerate(heat_BG.cpu().numpy()):
            start_k2 = None if settings.refine_m is None else start_Bk2[row]
            guesses = _guesses(guess_Bk2[row], start_k2, probability_Bk[row], cosine_Bk[row], truth_deg[first + row])
            yield QueryResult(guesses=guesses, heat_G=heat_G)


def _guesses(
    guess_k2: Tensor,
    start_k2: Tensor | None,
    probability_k: Tensor,
    cosine_k: Tensor,
    truth_deg: tuple[float, float] | None,
) -> list[Guess]:
    """The predictions for one query, in the order of the heat; refined ones by similarity."""
    order = torch.arange(len(guess_k2)) if start_k2 is None else cosine_k.argsort(descending=True, stable=True)
    distance_k: list[float | None] = [None] * len(guess_k2)
    if truth_deg is not None:
        distance_k = haversine_km(guess_k2, torch.tensor([truth_deg], dtype=torch.float64)).tolist()
    start: list[list[float | None]] = [[None, None]] * len(guess_k2) if start_k2 is None else start_k2.tolist()
    return [
        Guess(
            rank=rank,
            lat=float(guess_k2[row, 0]),
            lon=float(guess_k2[row, 1]),
            probability=float(probability_k[row]),
            cosine=float(cosine_k[row]),
            distance_km=distance_k[row],
            gallery_lat=start[row][0],
            gallery_lon=start[row][1],
        )
        for rank, row in enumerate(order.tolist(), start=1)
    ]


def _local_spacing_km(locations_G2: NDArray[np.float64], start_Bk2: Tensor) -> Tensor:
    """(B, k) km from each of these locations to the nearest other location of the gallery."""
    tree = cKDTree(unit_vectors(torch.from_numpy(np.unique(locations_G2, axis=0))).numpy())
    start = unit_vectors(start_Bk2.reshape(-1, 2)).numpy()
    chord_M2, _ = tree.query(start, k=2)
    spacing = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord_M2[:, 1] / 2, 0, 1))  # of a single location: half the Earth
    return torch.from_numpy(spacing).clamp(min=LEAST_REACH_KM).view(start_Bk2.shape[:2])


@dataclass(kw_only=True, slots=True, frozen=True)
class Query:
    """An image or a text whose location is predicted."""

    title: str
    photo: Path | None = None
    truth_deg: tuple[float, float] | None = None  # from a json beside the picture
    exif_deg: tuple[float, float] | None = None  # from the picture's EXIF; only shown


def file_names(keys: list[str]) -> dict[str, str]:
    """The name of each query's files: without the suffix, and with a number if two would be the same."""
    taken: dict[str, str] = {}  # key by name
    for key in keys:
        stem = key.replace("/", "_")
        stem = stem.rsplit(".", 1)[0] if "." in stem[1:] else stem
        stem = "_".join(stem.split())[:80]
        numbered = (f"{stem}-{number}" for number in count(2))
        taken[next(name for name in chain((stem,), numbered) if name not in taken)] = key
    return {key: name for name, key in taken.items()}


def prediction_row(query: Query, result: QueryResult, gallery: Gallery, **facts: Any) -> dict[str, Any]:
    """The JSON of one image or text."""
    row: dict[str, Any] = {"text": query.title}
    if query.photo is not None:
        truth, exif = _as_coordinates(query.truth_deg), _as_coordinates(query.exif_deg)
        row = {"image": str(query.photo), "truth": truth, "exif": exif}
    return {
        **row,
        **facts,
        "gallery": gallery.name,
        "gallery_size": len(gallery.gps_deg_G2),
        "gallery_sha256": gallery.sha256,
        "predictions": [asdict(guess) | {"map": guess.map} for guess in result.guesses],
    }


def summary_row(query: Query, result: QueryResult) -> dict[str, Any]:
    """One line of predictions.csv."""
    best = asdict(result.guesses[0])
    return {"query": query.title} | {name: best[name] for name in ("lat", "lon", "probability", "distance_km")}


def _as_coordinates(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return pair and dict(zip(("lat", "lon"), pair, strict=True))
