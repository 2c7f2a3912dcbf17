"""Measures of geo-localisation: pure functions on arrays of errors in km and coordinates in degrees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

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
    percent: dict[int, Interval]  # share of images with an error below each distance
    median_km: Interval
    mean_km: float
    geoscore: Interval  # in [0, 5000]


def percent_within(error_km_N: Floats) -> dict[int, float]:
    """Share of errors strictly below each distance, in percent, as OSV-5M, PLONK and PIGEON count."""
    return {km: float((error_km_N < km).mean() * 100) for km in THRESHOLDS_KM}


def geoscore(error_km_N: Floats) -> Floats:
    """5000 exp(-d / 1492.7 km) per image."""
    return 5000 * np.exp(-error_km_N / GEOSCORE_KM)


def summarise(error_km_N: Floats, seed: int = 0) -> Accuracy:
    """All measures, with percentile bootstrap intervals over images.

    Args:
        error_km_N: (N,) distance between prediction and truth in km.
        seed: of the resampling.

    Raises:
        ValueError: no errors, or some that are not finite.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    error_km_N = np.asarray(error_km_N, dtype=np.float64)
    if error_km_N.size == 0 or not np.isfinite(error_km_N).all():
        raise ValueError(
            f"{error_km_N.size} errors, {int((~np.isfinite(error_km_N)).sum())} of them not finite"
        )
    shares_RT, median_R, score_R = _resample(np.sort(error_km_N), np.random.default_rng(seed))
    percent = percent_within(error_km_N).values()
    return Accuracy(
        n=len(error_km_N),
        percent={
            km: _interval(value, share_R)
            for km, value, share_R in zip(THRESHOLDS_KM, percent, shares_RT.T, strict=True)
        },
        median_km=_interval(float(np.median(error_km_N)), median_R),
        mean_km=float(error_km_N.mean()),
        geoscore=_interval(float(geoscore(error_km_N).mean()), score_R),
    )


def nearest_place_km(test_deg_N2: Floats, gallery_deg_G2: Floats) -> Floats:
    """(N,) great-circle distance in km from every test place to its nearest place of the gallery.

    Chords of the unit sphere order places as great circles do, so a k-d tree in space finds the nearest.
    """
    chord_N, _ = cKDTree(_on_sphere(gallery_deg_G2)).query(_on_sphere(test_deg_N2))
    distance: Floats = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord_N / 2, 0, 1))
    return distance


def verbatim_count(test_deg_N2: Floats, gallery_deg_G2: Floats) -> int:
    """How many test places stand in the gallery with the very same coordinates, in float64 as the files have them."""
    held = {tuple(row) for row in gallery_deg_G2.tolist()}
    return sum(tuple(row) in held for row in test_deg_N2.tolist())


def _resample(sorted_km_N: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Shares within each distance in percent (R, T), median km (R,) and mean GeoScore (R,) of R resamples.

    A resample of sorted errors is a count for each, so that shares and median are look-ups; one exists at a time,
    so that memory stays O(N).
    """
    n = len(sorted_km_N)
    score_N = geoscore(sorted_km_N)
    within_T = np.searchsorted(sorted_km_N, THRESHOLDS_KM)  # how many errors are strictly below each distance
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


def _on_sphere(gps_deg_N2: Floats) -> Floats:
    vectors: Floats = unit_vectors(torch.from_numpy(np.asarray(gps_deg_N2, dtype=np.float64))).numpy()
    return vectors
