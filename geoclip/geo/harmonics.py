"""Real spherical harmonics."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def real_spherical_harmonics(gps_deg_N2: Tensor, degree: int) -> Tensor:
    """(N, 2) degrees -> (N, degree²) orthonormal real harmonics Y_lm, l = 0 … degree - 1, at column l² + l + m.

    m > 0 goes with cos(m lon), m < 0 with sin(|m| lon), both without the Condon-Shortley phase; the integral of each
    one's square over the unit sphere is 1. Computed in the type of the input: float32 is good to 2e-5 below degree 40.

    Source: Holmes, Featherstone, "A unified approach to the Clenshaw summation and the recursive computation of very
    high degree and order normalised associated Legendre functions", J. Geodesy 76, 2002, eqs. 11 to 13, divided by
    the square root of 4 pi.
    """
    lat, lon = gps_deg_N2.deg2rad().unbind(1)
    z, rho = lat.sin(), lat.cos()
    columns: list[Tensor] = [z] * degree**2
    sectoral = torch.full_like(z, 1 / math.sqrt(4 * math.pi))
    for m in range(degree):
        if m:
            sectoral = sectoral * rho * math.sqrt((2 * m + 1) / (2 * m) * (2 if m == 1 else 1))
        before, here = torch.zeros_like(z), sectoral
        for degree_l in range(m, degree):
            if degree_l > m:
                up = math.sqrt((4 * degree_l**2 - 1) / (degree_l**2 - m**2))
                back = math.sqrt(
                    (2 * degree_l + 1) * (degree_l - m - 1) * (degree_l + m - 1)
                    / ((2 * degree_l - 3) * (degree_l**2 - m**2))
                ) if degree_l > m + 1 else 0.0  # fmt: skip
                before, here = here, up * z * here - back * before
            middle = degree_l**2 + degree_l
            columns[middle + m] = here * (m * lon).cos()
            if m:
                columns[middle - m] = here * (m * lon).sin()
    return torch.stack(columns, dim=1)
