"""Measures of geo-localisation: pure functions on arrays of errors in km and coordinates in degrees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import binomtest

from geoclip.evaluation.protocols import LEAST_RATIO, MOST_RATIO, distance_km, is_inclusive, within
from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors

THRESHOLDS_KM = (1, 25, 200, 750, 2500)
GEOSCORE_KM = 1492.7  # decay length of GeoGuessr's world map: Haas et al., "PIGEON", CVPR 2024, section 3
RESAMPLES = 1000

Floats = NDArray[np.float64]


@dataclass(kw_only=True, slots=True, frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


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
    """All measures, with percentile bootstrap intervals over images; of shares of 0 and 100 % Wilson's.

    Args:
        error_km_N: (N,) distance between prediction and truth in km.
        seed: of the resampling.
        protocol: whether an error of exactly a distance lies within it.

    Raises:
        ValueError: no errors, or some that are not finite.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    error_km_N = np.asarray(error_km_N, dtype=np.float64)
    if error_km_N.size == 0 or not np.isfinite(error_km_N).all():
        raise ValueError(
            f"{error_km_N.size} errors, {int((~np.isfinite(error_km_N)).sum())} of them not finite"
        )
    sorted_km_N = np.sort(error_km_N)
    side: Literal["left", "right"] = "right" if is_inclusive(protocol) else "left"
    within_T = np.searchsorted(sorted_km_N, THRESHOLDS_KM, side=side)
    shares_RT, median_R, score_R = _resample(sorted_km_N, within_T, np.random.default_rng(seed))
    percent = percent_within(error_km_N, protocol).values()
    return Accuracy(
        n=len(error_km_N),
        percent={
            km: _interval_of_share(value, share_R, len(error_km_N))
            for km, value, share_R in zip(THRESHOLDS_KM, percent, shares_RT.T, strict=True)
        },
        median_km=_interval(float(np.median(error_km_N)), median_R),
        mean_km=float(error_km_N.mean()),
        geoscore=_interval(float(geoscore(error_km_N).mean()), score_R),
    )


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


def pairs_around(
    tree: cKDTree, point_N3: Floats, reach_N: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the points and of the tree's places that lie within each point's reach, pair by pair."""
    found_N = tree.query_ball_point(point_N3, reach_N)
    count_N = np.fromiter(map(len, found_N), np.int64, len(found_N))
    place_P = np.fromiter(chain.from_iterable(found_N), np.int64, int(count_N.sum()))
    return np.repeat(np.arange(len(point_N3)), count_N), place_P


def verbatim_count(test_deg_N2: Floats, gallery_deg_G2: Floats) -> int:
    """How many test places stand in the gallery with the very same coordinates, in float64 as the files have them."""
    held = {tuple(row) for row in gallery_deg_G2.tolist()}
    return sum(tuple(row) in held for row in test_deg_N2.tolist())


def share_interval(true_N: NDArray[np.bool_], seed: int = 0) -> Interval:
    """The share that is true, in percent, and its interval, as `summarise` has it; NaN where there is no value.

    How many of n draws with replacement are true is binomial: nothing need be drawn one by one.
    """
    n = len(true_N)
    if not n:
        return Interval(value=float("nan"), low=float("nan"), high=float("nan"))
    share = float(true_N.mean())
    resampled_R = 100 * np.random.default_rng(seed).binomial(n, share, RESAMPLES) / n
    return _interval_of_share(100 * share, resampled_R, n)


def mean_interval(value_N: Floats, seed: int = 0) -> Interval:
    """The mean and its bootstrap interval; NaN where there is no value."""
    if not len(value_N):
        return Interval(value=float("nan"), low=float("nan"), high=float("nan"))
    rng, n = np.random.default_rng(seed), len(value_N)
    means_R = [value_N[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    return _interval(float(value_N.mean()), np.array(means_R))


def _resample(
    sorted_km_N: Floats, within_T: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Shares within each distance in percent (R, T), median km (R,) and mean GeoScore (R,) of R resamples.

    `within_T` tells how many of the smallest errors lie within each distance. A resample of sorted errors is a count
    for each, so that shares and median are look-ups; one exists at a time, so that memory stays O(N).
    """
    n = len(sorted_km_N)
    score_N = geoscore(sorted_km_N)
    shares_RT = np.empty((RESAMPLES, len(THRESHOLDS_KM)))
    median_R, score_R = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        drawn_N = np.bincount(rng.integers(0, n, n), minlength=n)
        below_N = np.concatenate(((0,), np.cumsum(drawn_N)))  # below_N[i]: draws among the i smallest errors
        shares_RT[resample] = 100 * below_N[within_T] / n
        middle = np.searchsorted(below_N[1:], ((n - 1) // 2, n // 2), side="right")
        median_R[resample] = sorted_km_N[middle].mean()
        score_R[resample] = drawn_N @ score_N / n
    return shares_RT, median_R, score_R


def _interval(value: float, resampled_R: Floats) -> Interval:
    low, high = np.percentile(resampled_R, (2.5, 97.5))
    return Interval(value=value, low=float(low), high=float(high))


def _interval_of_share(percent: float, resampled_R: Floats, n: int) -> Interval:
    return _interval(percent, resampled_R) if 0 < percent < 100 else all_or_none(percent > 0, n)


def all_or_none(is_all: bool, n: int) -> Interval:
    """100 or 0 % of n, with Wilson's interval: resampling what is all alike says nothing of how sure it is.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    found = binomtest(n if is_all else 0, n).proportion_ci(method="wilson")
    low, high = (100.0 * float(np.clip(bound, 0, 1)) for bound in (found.low, found.high))
    return Interval(value=100.0, low=low, high=100.0) if is_all else Interval(value=0.0, low=0.0, high=high)


def on_sphere(gps_deg_N2: Floats) -> Floats:
    """(N, 2) degrees -> (N, 3) points on the unit sphere."""
    vectors: Floats = unit_vectors(torch.from_numpy(np.asarray(gps_deg_N2, dtype=np.float64))).numpy()
    return vectors
