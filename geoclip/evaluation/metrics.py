"""Accuracy at a distance, GeoScore and median error, by protocol, and published results to compare with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoclip.errors import DataError
from geoclip.evaluation.significance import Interval, bootstrap, interval_of, share_interval, weighted_medians
from geoclip.geo.geodesy import EARTH_RADIUS_KM, haversine_km, unit_vectors

PAIRS_PER_THREAD = 1000  # at least
LEAST_RATIO, MOST_RATIO = (0.9944, 1.0045)  # of geodesic to great circle: WGS 84's extreme radii of curvature over R1
THRESHOLDS_KM = (1, 25, 200, 750, 2500)
GEOSCORE_KM = 1492.7  # decay length of GeoGuessr's world map: Haas et al., "PIGEON", CVPR 2024, section 3

Floats = NDArray[np.float64]


def distance_km(a_deg_N2: Floats, b_deg_N2: Floats, protocol: str) -> Floats:
    """(N,) distances in km between paired locations, (N, 2) latitude, longitude in degrees.

    Protocol `sphere` measures great circles, protocol `released` geodesics of WGS 84, as the released code does.

    Raises:
        ValueError: unknown protocol.

    Source: geodesics: Karney, "Algorithms for geodesics", J. Geodesy 87, 2013, in PROJ.
    """
    if is_inclusive(protocol):
        return _geodesic_m(a_deg_N2, b_deg_N2) / 1000
    a, b = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float64)) for side in (a_deg_N2, b_deg_N2))
    kilometres: Floats = haversine_km(a, b).numpy()
    return kilometres


def is_inclusive(protocol: str) -> bool:
    """Whether an error equal to a threshold counts as within it: `released` compares with <=, `sphere` with <.

    Raises:
        ValueError: unknown protocol.
    """
    if protocol not in ("sphere", "released"):
        raise ValueError(f"protocol={protocol} is neither sphere nor released")
    return protocol == "released"


def within(error_km_N: Floats, km: float, protocol: str) -> NDArray[np.bool_]:
    """(N,) whether each error counts as within `km`."""
    counted: NDArray[np.bool_] = error_km_N <= km if is_inclusive(protocol) else error_km_N < km
    return counted


def _geodesic_m(a_deg_N2: Floats, b_deg_N2: Floats) -> Floats:
    """Computed in threads: PROJ takes a microsecond per pair, and releases Python's lock."""
    threads = min(torch.get_num_threads(), len(a_deg_N2) // PAIRS_PER_THREAD) or 1
    parts = np.array_split(np.hstack([a_deg_N2, b_deg_N2]), threads)
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(_inverse_m, parts)))


def _inverse_m(pairs_deg_M4: Floats) -> Floats:
    a_lat, a_lon, b_lat, b_lon = pairs_deg_M4.T
    metres: Floats = _wgs84().inv(a_lon, a_lat, b_lon, b_lat)[2]
    return metres


@cache
def _wgs84() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")


@dataclass(kw_only=True, slots=True, frozen=True)
class Accuracy:
    """The usual measures of a test set."""

    n: int
    percent: dict[int, Interval]  # share of images with an error within each distance
    median_km: Interval
    mean_km: float
    geoscore: Interval  # in [0, 5000]


def shares_json(percent: dict[int, Interval]) -> dict[str, Any]:
    """Shares by distance, as in the JSON files."""
    return {str(km): asdict(interval) for km, interval in percent.items()}


def percent_within(error_km_N: Floats, protocol: str = "sphere") -> dict[int, float]:
    """Share of errors within each distance, in percent."""
    return {km: float(within(error_km_N, km, protocol).mean() * 100) for km in THRESHOLDS_KM}


def geoscore(error_km_N: Floats) -> Floats:
    """5000 exp(-d / 1492.7 km) per image."""
    return 5000 * np.exp(-error_km_N / GEOSCORE_KM)


def summarise(error_km_N: Floats, seed: int = 0, protocol: str = "sphere") -> Accuracy:
    """All measures, with 95 % intervals over images.

    Args:
        error_km_N: (N,) distance between prediction and truth in km.
        seed: of the bootstrap.
        protocol: see `is_inclusive`.

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
    """(RESAMPLES, M) bootstrap values of one run: the shares in percent, median in km, mean GeoScore.

    Two runs on the same images have the same resamples, so their differences are paired.
    """
    n = len(error_km_N)
    shares = (100.0 * within(error_km_N, km, protocol) for km in THRESHOLDS_KM)
    value_NM = np.stack([*shares, geoscore(error_km_N)], axis=1)

    def measure(count_RN: Floats) -> Floats:
        mean_RM = count_RN @ value_NM / n
        median_R = weighted_medians(error_km_N, count_RN)
        return np.column_stack((mean_RM[:, :-1], median_R, mean_RM[:, -1]))

    return bootstrap(measure, n, seed)


def nearest_location_km(test_deg_N2: Floats, gallery_deg_G2: Floats, protocol: str = "sphere") -> Floats:
    """(N,) distance in km from every test location to the nearest location of the gallery."""
    return nearest_location(test_deg_N2, gallery_deg_G2, protocol)[1]


def nearest_location(
    test_deg_N2: Floats, gallery_deg_G2: Floats, protocol: str = "sphere"
) -> tuple[NDArray[np.int64], Floats]:
    """(N,) rows of the gallery locations nearest to the test locations, and (N,) their distances in km.

    Chords of the unit sphere have the same order as great circles, so a k-d tree finds the nearest. The order of
    geodesics can differ if two are almost equal: then all candidates are measured.
    """
    tree = cKDTree(on_sphere(gallery_deg_G2), compact_nodes=False, balanced_tree=False)  # three times as fast to build
    test_N3 = on_sphere(test_deg_N2)
    chord_N, row_N = tree.query(test_N3)
    if not is_inclusive(protocol):
        return row_N, 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord_N / 2, 0, 1))
    reach_N = chord_N * (MOST_RATIO / LEAST_RATIO) + 1e-12
    number_P, row_P = pairs_around(tree, test_N3, reach_N)
    km_P = distance_km(test_deg_N2[number_P], gallery_deg_G2[row_P], protocol)
    order = np.lexsort((km_P, number_P))
    first = order[np.searchsorted(number_P[order], np.arange(len(test_N3)))]
    return row_P[first], km_P[first]


def pairs_around(tree: cKDTree, point_N3: Floats, reach_N: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of a point and a row of the tree within that point's reach: (P,) points and (P,) rows."""
    found_N = tree.query_ball_point(point_N3, reach_N)
    count_N = np.fromiter(map(len, found_N), np.int64, len(found_N))
    row_P = np.fromiter(chain.from_iterable(found_N), np.int64, int(count_N.sum()))
    return np.repeat(np.arange(len(point_N3)), count_N), row_P


def verbatim_count(test_deg_N2: Floats, gallery_deg_G2: Floats) -> int:
    """How many test locations the gallery contains with exactly the same float64 coordinates."""
    known = {tuple(row) for row in gallery_deg_G2.tolist()}
    return sum(tuple(row) in known for row in test_deg_N2.tolist())


def on_sphere(gps_deg_N2: Floats) -> Floats:
    """(N, 2) degrees -> (N, 3) points on the unit sphere."""
    vectors: Floats = unit_vectors(torch.from_numpy(np.asarray(gps_deg_N2, dtype=np.float64))).numpy()
    return vectors


def references(benchmark: str) -> list[dict[str, Any]]:
    """The published results of a benchmark: model, percent by distance in km, trust.

    Raises:
        DataError: the benchmark has none.
    """
    path = Path(__file__).with_name("published.yaml")
    published: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if benchmark not in published:
        raise DataError(f"references=true: nothing is published on {benchmark}, only on {', '.join(sorted(published))}")
    rows = published[benchmark]
    return [row | {"percent": dict(zip(map(str, THRESHOLDS_KM), row["percent"], strict=True))} for row in rows]
