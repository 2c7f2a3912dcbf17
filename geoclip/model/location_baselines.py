"""Location encoders to compare GeoCLIP's with: (N, 2) degrees -> (N, D) embeddings, not normalised."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from geoclip.geo.encodings import real_spherical_harmonics
from geoclip.geo.geodesy import EARTH_RADIUS_KM
from geoclip.model.location_encoder import PROJECTIONS, checked_degrees, relu_mlp


class _FeatureEncoder(nn.Module):
    """Features of coordinates, in float32 under autocast too, then an MLP and a linear head."""

    hidden: ClassVar[str] = "mlp"  # name of the hidden layers
    head: nn.Linear

    def features(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) degrees -> (N, F)."""
        raise NotImplementedError

    def forward(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) latitude, longitude in degrees -> (N, D)."""
        degrees_N2 = checked_degrees(gps_deg_N2)
        with torch.autocast(gps_deg_N2.device.type, enabled=False):
            features_NF = self.features(degrees_N2)
        out: Tensor = self.head(getattr(self, self.hidden)(features_NF))
        return out


class DirectEncoder(_FeatureEncoder):
    """An MLP on the projected coordinates, without Fourier features. `projection`: a name in `PROJECTIONS`."""

    def __init__(
        self, *, projection: str = "equal_earth", hidden_dim: int = 1024, depth: int = 3, embedding_dim: int = 512
    ) -> None:
        super().__init__()
        self.projection = projection
        self.mlp = relu_mlp(PROJECTIONS[projection][1], hidden_dim, depth)
        self.head = nn.Linear(hidden_dim, embedding_dim)

    def features(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) degrees -> (N, A) projected coordinates."""
        return PROJECTIONS[self.projection][0](gps_deg_N2)


class Sine(nn.Module):
    """sin(w0 x)."""

    def __init__(self, w0: float) -> None:
        super().__init__()
        self.w0 = w0

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return (self.w0 * x).sin()


class SphericalHarmonicsEncoder(_FeatureEncoder):
    """Real spherical harmonics below a degree, and a SIREN on them.

    Args:
        degree: L; there are L² harmonics.
        first_w0: w0 of the first layer; the others have 1.

    Source: Klemmer et al., "SatCLIP: Global, General-Purpose Location Embeddings with Satellite Imagery", AAAI 2025;
    Rußwurm et al., "Geographic Location Encoding with Spherical Harmonics and Sinusoidal Representation Networks",
    ICLR 2024; initial weights by Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
    NeurIPS 2020, section 3.2.
    """

    hidden = "siren"

    def __init__(
        self,
        *,
        degree: int = 10,
        hidden_dim: int = 512,
        depth: int = 2,
        embedding_dim: int = 512,
        first_w0: float = 30.0,
    ) -> None:
        super().__init__()
        self.degree = degree
        layers: list[nn.Module] = []
        inputs = degree**2
        for number in range(depth):
            linear, w0 = nn.Linear(inputs, hidden_dim), first_w0 if number == 0 else 1.0
            bound = 1 / inputs if number == 0 else math.sqrt(6 / inputs) / w0
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.uniform_(linear.bias, -bound, bound)
            layers += [linear, Sine(w0)]
            inputs = hidden_dim
        self.siren = nn.Sequential(*layers)
        self.head = nn.Linear(hidden_dim, embedding_dim)

    def features(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) degrees -> (N, L²)."""
        return real_spherical_harmonics(gps_deg_N2, self.degree)


class Sphere2VecEncoder(_FeatureEncoder):
    """Sines and cosines of latitude and longitude at many scales, multiplied as on a sphere, and an MLP on them.

    Args:
        variant: sphere_c or sphere_m; with `_plus`, the grid's sines and cosines are features too.
        scales: S, evenly spaced in the logarithm from the Earth's radius to `min_radius_km`.
        min_radius_km: the finest scale.

    Source: Mai et al., "Sphere2Vec: A general-purpose location representation learning over a spherical surface for
    large-scale geospatial predictions", ISPRS Journal 202, 2023, section 4.
    """

    divisor_S: Tensor

    def __init__(
        self,
        variant: str = "sphere_c_plus",
        *,
        scales: int = 32,
        min_radius_km: float = 10.0,
        hidden_dim: int = 1024,
        depth: int = 3,
        embedding_dim: int = 512,
    ) -> None:
        super().__init__()
        self.variant = variant
        exponent_S = torch.arange(scales) / max(1, scales - 1)
        self.register_buffer("divisor_S", (min_radius_km / EARTH_RADIUS_KM) ** exponent_S)
        width = scales * ((3 if variant.startswith("sphere_c") else 5) + 3 * variant.endswith("plus"))
        self.mlp = relu_mlp(width, hidden_dim, depth)
        self.head = nn.Linear(hidden_dim, embedding_dim)

    def features(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) degrees -> (N, S·W); see `sphere2vec_features`."""
        return sphere2vec_features(gps_deg_N2, self.divisor_S.float(), self.variant)


def sphere2vec_features(gps_deg_N2: Tensor, divisor_S: Tensor, variant: str) -> Tensor:
    """(N, 2) degrees -> (N, S·W) features; W is 3 for sphere_c, 5 for sphere_m, and 3 more with `_plus`."""
    lat_N1, lon_N1 = gps_deg_N2.deg2rad().split(1, dim=1)
    lat_NS, lon_NS = lat_N1 / divisor_S, lon_N1 / divisor_S
    if variant.startswith("sphere_c"):
        parts = [lat_NS.sin(), lat_NS.cos() * lon_NS.cos(), lat_NS.cos() * lon_NS.sin()]
    else:
        parts = [
            lat_NS.sin(),
            lat_NS.cos() * lon_N1.cos(),
            lat_N1.cos() * lon_NS.cos(),
            lat_NS.cos() * lon_N1.sin(),
            lat_N1.cos() * lon_NS.sin(),
        ]
    if variant.endswith("plus"):
        parts += [lat_NS.cos(), lon_NS.sin(), lon_NS.cos()]  # the sine of the latitude is already there
    return torch.cat(parts, dim=1)
