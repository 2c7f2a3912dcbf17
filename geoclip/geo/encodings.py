"""Encodings of coordinates: map projections, random Fourier features, spherical harmonics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Coefficients of the Equal Earth polynomial. The factor 66.50336 / 180 below is the released code's.
A1, A2, A3, A4 = 1.340264, -0.081106, 0.000893, 0.003796
ROOT3 = math.sqrt(3)
MERCATOR_DEG = math.degrees(math.atan(math.sinh(math.pi)))  # 85.0511, at which the map is square


def equal_earth(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) latitude, longitude in degrees -> (N, 2) x in [-1, 1], y in [-0.4867, 0.4867].

    The released weights were fitted to float32 arithmetic in this order. At sigma 2^8 the Fourier phase magnifies a
    rounding difference by 2 pi * 256 * 3, so a more exact formula would agree less with them.

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
    """(N, 2) degrees -> (N, 2) x, y in [-1, 1]; latitudes are clamped to 85.05°, as on web maps.

    Source: Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987, eq. 7-2.
    """
    lat = gps_deg_N2[:, 0].clamp(-MERCATOR_DEG, MERCATOR_DEG).deg2rad()
    return torch.stack((gps_deg_N2[:, 1] / 180, torch.asinh(lat.tan()) / math.pi), dim=1)


def sphere(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) degrees -> (N, 3) points on a sphere of radius 1 / pi: no seam, no poles.

    Half the equator has length 1, as on the maps above, so that a sigma means the same detail on all of them.
    """
    lat, lon = gps_deg_N2.deg2rad().unbind(1)
    return torch.stack((lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()), dim=1) / math.pi


def random_frequencies(count: int, sigma: float, axes: int = 2, generator: torch.Generator | None = None) -> Tensor:
    """(count, axes) frequencies drawn from N(0, sigma²), in cycles per unit of the projected plane or space."""
    return torch.randn((count, axes), generator=generator) * sigma


def spaced_sigmas(sigma_min: float, sigma_max: float, scales: int) -> list[float]:
    """Scales from sigma_min to sigma_max, evenly spaced in log2; a single scale is sigma_min.

    Source: GeoCLIP, NeurIPS 2023, section 3: the general rule for M branches.
    """
    steps = torch.linspace(math.log2(sigma_min), math.log2(sigma_max), scales, dtype=torch.float64)
    return [float(sigma) for sigma in steps.exp2()]


def fourier_features(x_NA: Tensor, freq_KA: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(N, A) projected coordinates -> (N, 2K): cosines, then sines, of 2 pi x.freq.

    Args:
        x_NA: float32.
        freq_KA: cycles per unit.
        dtype: of the result, which is then rounded after the cosine and has no gradient; None: the coordinates' type,
            with gradient.

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions", NeurIPS 2020, eq. 5.
    """
    phase_NK = _products(2 * math.pi * x_NA, freq_KA)
    if dtype is not None:
        features_NF = torch.empty((len(x_NA), 2 * len(freq_KA)), dtype=dtype, device=x_NA.device)
        torch.cos(phase_NK, out=features_NF[:, : len(freq_KA)])
        torch.sin(phase_NK, out=features_NF[:, len(freq_KA) :])
        return features_NF
    return torch.cat((phase_NK.cos(), phase_NK.sin()), dim=1)


def _products(x_NA: Tensor, freq_KA: Tensor) -> Tensor:
    """(N, K) x @ freq.T; on a GPU axis by axis, because matrix products there may be TF32, with 10 bits."""
    if not x_NA.is_cuda:
        return x_NA @ freq_KA.T
    phase_NK = x_NA[:, :1] * freq_KA[:, 0]
    for axis in range(1, x_NA.shape[1]):
        phase_NK = torch.addcmul(phase_NK, x_NA[:, axis, None], freq_KA[:, axis])
    return phase_NK


def real_spherical_harmonics(gps_deg_N2: Tensor, degree: int) -> Tensor:
    """(N, 2) degrees -> (N, degree²) orthonormal real harmonics Y_lm, l = 0 … degree - 1, at column l² + l + m.

    m > 0 has cos(m lon), m < 0 has sin(|m| lon), without the Condon-Shortley phase; the square of each integrates to 1
    over the unit sphere. In the input's type: the error of float32 is below 2e-5 up to degree 40.

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
