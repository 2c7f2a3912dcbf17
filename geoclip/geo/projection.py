"""Where a place lies on a map, or on the sphere: what location encoders see of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Polynomial coefficients of the paper. The factor 66.50336 / 180 below is the released code's.
A1, A2, A3, A4 = 1.340264, -0.081106, 0.000893, 0.003796
ROOT3 = math.sqrt(3)
MERCATOR_DEG = math.degrees(math.atan(math.sinh(math.pi)))  # 85.0511: where the map is square


def equal_earth(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) latitude, longitude in degrees -> (N, 2) x in [-1, 1], y in [-0.4867, 0.4867].

    The released weights were fitted to float32 arithmetic in this very order. At sigma 2^8 the Fourier phase
    magnifies a rounding difference here by 2 pi * 256 * 3, so a more exact formula would agree less well.

    Source: Šavrič, Patterson, Jenny, "The Equal Earth map projection", IJGIS 33(3), 2019, eqs. 1 to 3.
    """
    lat, lon = gps_deg_N2[:, 0].deg2rad(), gps_deg_N2[:, 1].deg2rad()
    theta = torch.asin((ROOT3 / 2) * torch.sin(lat))
    slope = 3 * (9 * A4 * theta**8 + 7 * A3 * theta**6 + 3 * A2 * theta**2 + A1)
    x = 2 * ROOT3 * lon * torch.cos(theta) / slope
    y = A4 * theta**9 + A3 * theta**7 + A2 * theta**3 + A1 * theta
    return torch.stack((x, y), dim=1) * 66.50336 / 180


def equirectangular(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) degrees -> (N, 2) x = longitude / 180 in [-1, 1], y = latitude / 180 in [-0.5, 0.5]."""
    return gps_deg_N2.flip(1) / 180


def mercator(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) degrees -> (N, 2) x, y in [-1, 1]; latitudes beyond 85.05° are held there, as on web maps.

    Source: Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987, eq. 7-2.
    """
    lat = gps_deg_N2[:, 0].clamp(-MERCATOR_DEG, MERCATOR_DEG).deg2rad()
    return torch.stack((gps_deg_N2[:, 1] / 180, torch.asinh(lat.tan()) / math.pi), dim=1)


def sphere(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) degrees -> (N, 3) points on a sphere of radius 1 / pi: no seam, no poles.

    Half the equator is pi radii long there, hence 1, as on the maps above: a sigma means the same detail on all.
    """
    lat, lon = gps_deg_N2.deg2rad().unbind(1)
    return torch.stack((lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()), dim=1) / math.pi
