"""Measures of geo-localisation: pure functions on arrays of errors in km and coordinates in degrees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoclip.evaluation.protocols import LEAST_RATIO, MOST_RATIO, distance_km, is_inclusive, within
from geoclip.evaluation.significance import Interval, bootstrap, interval_of, share_interval, weighted_medians
from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors

THRESHOLDS_KM = (1, 25, 200, 750, 2500)
GEOSCORE_KM = 1492.7  # decay length of GeoGuessr's world map: Haas et al., "PIGEON", CVPR 2024, section 3

Floats = NDArray[np.float64]


@dataclass(kw_only=True, slots=True, frozen=True)
class Accuracy:
    """What the field reports of a test set."""

    n: int
    percent: dict[int, Interval]  # share of images with an error within each distance
    median_km: Interval
    mean_km: float
    geoscore: Interval  # in [0, 5000]


def percent_within(error_km_N: Floats, protocol: str = "sphere") -> dict[int, float]:
    """Share of errors within each distance, in percent; an error of exactly the distance as the protocol counts it."""
    return {km: float(within(error_km_N, km, protocol).mean() * 100) for km in THRESHOLDS_KM}


def geoscore(error_km_N: Floats) -> Floats:
    """5000 exp(-d / 1492.7 km) per image."""
    return 5000 * np.exp(-error_km_N / GEOSCORE_KM)


def summarise(error_km_N: Floats, seed: int = 0, protocol: str = "sphere") -> Accuracy:
    """All measures, with 95 % intervals over images, see `significance`.

    Args:
        error_km_N: (N,) distance between prediction and truth in km.
        seed: of the resampling.
        protocol: whether an error of exactly a distance lies within it.

    Raises:
        ValueError: no errors, or some that are not finite.
    """
    error_km_N = np.asarray(error_km_N, dtype=np.float64)
    if error_km_N.size == 0 or not np.isfinite(error_km_N).all():
        raise ValueError(f"{error_km_N.size} errors, {int((~np.isfinite(error_km_N)).sum())} of them not finite")
    draw_RM = resampled_measures(error_km_N, protocol, seed)
    return Accuracy(
        n=len(error_km_N),
        percent={km: share_interval(within(error_km_N, km, protocol)) for km in THRESHOLDS_KM},
        median_km=interval_of(float(np.median(error_km_N)), draw_RM[:, -2]),
        mean_km=float(error_km_N.mean()),
        geoscore=interval_of(float(geoscore(error_km_N).mean()), draw_RM[:, -1]),
    )


def resampled_measures(error_km_N: Floats, protocol: str, seed: int) -> Floats:
    """(RESAMPLES, M) bootstrap values of one run: the shares in percent, then median in km and mean GeoScore.

    Runs on the same images are drawn alike, so differences of what they return are paired.
    """
    n = len(error_km_N)
    shares = (100.0 * within(error_km_N, km, protocol) for km in THRESHOLDS_KM)
    value_NM = np.stack([*shares, geoscore(error_km_N)], axis=1)

    def measure(count_RN: Floats) -> Floats:
        mean_RM = count_RN @ value_NM / n
        median_R = weighted_medians(error_km_N, count_RN)
        return np.column_stack((mean_RM[:, :-1], median_R, mean_RM[:, -1]))

    return bootstrap(measure, n, seed)


def nearest_place_km(test_deg_N2: Floats, gallery_deg_G2: Floats, protocol: str = "sphere") -> Floats:
    """(N,) distance in km from every test place to its nearest place of the gallery."""
    return nearest_place(test_deg_N2, gallery_deg_G2, protocol)[1]


def nearest_place(
    test_deg_N2: Floats, gallery_deg_G2: Floats, protocol: str = "sphere"
) -> tuple[NDArray[np.int64], Floats]:
    """(N,) rows of the gallery's places that are nearest to the test places, and (N,) their distances in km.

    Chords of the unit sphere order places as great circles do, so a k-d tree in space finds the nearest. Geodesics
    order them otherwise where two are almost as near: there all that may be the nearest are measured.
    """
    tree = cKDTree(on_sphere(gallery_deg_G2), compact_nodes=False, balanced_tree=False)  # a third of the time
    test_N3 = on_sphere(test_deg_N2)
    chord_N, row_N = tree.query(test_N3)
    if not is_inclusive(protocol):
        return row_N, 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord_N / 2, 0, 1))
    reach_N = chord_N * (MOST_RATIO / LEAST_RATIO) + 1e-12
    number_P, place_P = pairs_around(tree, test_N3, reach_N)
    km_P = distance_km(test_deg_N2[number_P], gallery_deg_G2[place_P], protocol)
    order = np.lexsort((km_P, number_P))
    first = order[np.searchsorted(number_P[order], np.arange(len(test_N3)))]
    return place_P[first], km_P[first]


def pairs_around(tree: cKDTree, point_N3: Floats, reach_N: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the points and of the tree's places that lie within each point's reach, pair by pair."""
    found_N = tree.query_ball_point(point_N3, reach_N)
    count_N = np.fromiter(map(len, found_N), np.int64, len(found_N))
    place_P = np.fromiter(chain.from_iterable(found_N), np.int64, int(count_N.sum()))
    return np.repeat(np.arange(len(point_N3)), count_N), place_P


def verbatim_count(test_deg_N2: Floats, gallery_deg_G2: Floats) -> int:
    """How many test places stand in the gallery with the very same coordinates, in float64 as the files have them."""
    held = {tuple(row) for row in gallery_deg_G2.tolist()}
    return sum(tuple(row) in held for row in test_deg_N2.tolist())


def on_sphere(gps_deg_N2: Floats) -> Floats:
    """(N, 2) degrees -> (N, 3) points on the unit sphere."""
    vectors: Floats = unit_vectors(torch.from_numpy(np.asarray(gps_deg_N2, dtype=np.float64))).numpy()
    return vectors
