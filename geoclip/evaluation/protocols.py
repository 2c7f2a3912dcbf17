"""How errors are counted: on the sphere as most of the field does, or as GeoCLIP's released evaluation does.

| protocol | distance | an image counts within d km when its error is |
|---|---|---|
| sphere | great circle, radius 6371.0088 km | < d, as in OSV-5M, PLONK and PIGEON |
| released | geodesic on WGS 84 | <= d, as in `distance_accuracy` of the package geoclip, train/eval.py |

The two distances differ by up to 0.56 %. The released code rounds coordinates to float32 first; here they stay float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from geoclip.geo.geodesy import haversine_km

ProtocolName = Literal["sphere", "released"]

LEAST_RATIO, MOST_RATIO = (
    0.9944,
    1.0045,
)  # of geodesic to great circle: WGS 84's extreme radii of curvature over R1

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
        metres_N = _wgs84().inv(a_deg_N2[:, 1], a_deg_N2[:, 0], b_deg_N2[:, 1], b_deg_N2[:, 0])[2]
        return np.asarray(metres_N, dtype=np.float64) / 1000
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


@cache
def _wgs84() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")
