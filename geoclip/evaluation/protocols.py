"""How errors are counted: on the sphere as most of the field does, or as GeoCLIP's released evaluation does.

| protocol | distance | an image counts within d km when its error is |
|---|---|---|
| sphere | great circle, radius 6371.0088 km | < d, as in OSV-5M, PLONK and PIGEON |
| released | geodesic on WGS 84 | <= d, as in `distance_accuracy` of the package geoclip, train/eval.py |

The two distances differ by up to 0.56 %. The released code rounds coordinates to float32 first; here they stay float64.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from geoclip.geo.geodesy import haversine_km

ProtocolName = Literal["sphere", "released"]

PAIRS_PER_THREAD = 1000  # at least: fewer are measured before a thread has started
LEAST_RATIO, MOST_RATIO = (0.9944, 1.0045)  # of geodesic to great circle: WGS 84's extreme radii of curvature over R1

Floats = NDArray[np.float64]


def distance_km(a_deg_N2: Floats, b_deg_N2: Floats, protocol: str) -> Floats:
    """(N,) distances in km between paired places.

    Args:
        a_deg_N2: (N, 2) latitude, longitude in degrees.
        b_deg_N2: (N, 2) likewise.
        protocol: a `ProtocolName`.

    Raises:
        ValueError: no such protocol.

    Source: of geodesics Karney, "Algorithms for geodesics", J. Geodesy 87, 2013, as PROJ has them.
    """
    if is_inclusive(protocol):
        return _geodesic_m(a_deg_N2, b_deg_N2) / 1000
    a, b = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float64)) for side in (a_deg_N2, b_deg_N2))
    kilometres: Floats = haversine_km(a, b).numpy()
    return kilometres


def is_inclusive(protocol: str) -> bool:
    """Whether an error of exactly the distance lies within it.

    Raises:
        ValueError: no such protocol.
    """
    match protocol:
        case "sphere":
            return False
        case "released":
            return True
        case _:
            raise ValueError(f"protocol={protocol} is neither sphere nor released")


def within(error_km_N: Floats, km: float, protocol: str) -> NDArray[np.bool_]:
    """(N,) whether each error counts as within `km`."""
    counted: NDArray[np.bool_] = error_km_N <= km if is_inclusive(protocol) else error_km_N < km
    return counted


def _geodesic_m(a_deg_N2: Floats, b_deg_N2: Floats) -> Floats:
    """One thread per processor, this one with them: PROJ measures a microsecond each and holds no lock of Python's."""
    threads = min(torch.get_num_threads(), len(a_deg_N2) // PAIRS_PER_THREAD) or 1
    mine, *others = np.array_split(np.hstack([a_deg_N2, b_deg_N2]), threads)
    with ThreadPoolExecutor(threads) as pool:
        theirs = pool.map(_inverse_m, others)
        return np.concatenate([_inverse_m(mine), *theirs])


def _inverse_m(pairs_deg_M4: Floats) -> Floats:
    a_lat, a_lon, b_lat, b_lon = pairs_deg_M4.T
    metres: Floats = _wgs84().inv(a_lon, a_lat, b_lon, b_lat)[2]
    return metres


@cache
def _wgs84() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")
