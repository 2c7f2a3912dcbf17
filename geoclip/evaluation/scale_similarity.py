"""What each scale of a location encoder tells apart: how like the places around a point are to it, scale by scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoclip.data.galleries.countries import regions_of
from geoclip.geo.geodesy import EARTH_RADIUS_KM, destination
from geoclip.model.location_encoder import LocationEncoder

AT_ONCE = 4096  # places
CIRCUMFERENCE_KM = 2 * math.pi * EARTH_RADIUS_KM


@dataclass(kw_only=True, slots=True, frozen=True)
class ScaleSimilarity:
    """Cosines with the point in the middle, row 0 in the north."""

    sigmas: tuple[float, ...]
    center_deg: tuple[float, float]  # latitude, longitude
    extent_km: float | None  # from edge to edge; None: the whole Earth, by longitude and latitude
    branches_MHW: NDArray[np.float32]
    all_HW: NDArray[np.float32]  # of what the encoder says: its branches summed, or side by side
    norms_M: NDArray[np.float32]  # of the branches' outputs at the point: in a sum the longest says most
    land_HW: NDArray[np.bool_]  # Natural Earth's countries, to find one's way by


def scale_similarities(
    location_encoder: LocationEncoder,
    center_deg: tuple[float, float],
    extent_km: float | None,
    px: int = 96,
) -> ScaleSimilarity:
    """Cosine of each branch's output, and of the whole encoder's, at a point with that at the places around it.

    Args:
        location_encoder: of Fourier features; it is only asked.
        center_deg: latitude, longitude of the point.
        extent_km: width and height of a square map around it, on which distances and directions from the point are
            true; None: the whole Earth, `px` wide and half as high.
        px: width in pixels; what is asked is at their middles.

    Raises:
        ValueError: an extent that is not positive or goes around the Earth.

    Source of the map: Snyder, "Map Projections: A Working Manual", 1987, chapter 25, azimuthal equidistant.
    """
    if extent_km is not None and not 0 < extent_km * math.sqrt(2) <= CIRCUMFERENCE_KM:
        raise ValueError(f"extent_km={extent_km} must be positive, and its corners on this side of the Earth")
    center_12 = torch.tensor([center_deg], dtype=torch.float64)
    places_HW2 = _world(px) if extent_km is None else _around(center_12, extent_km, px)
    height, width = places_HW2.shape[:2]
    country_N, _ = regions_of(places_HW2.reshape(-1, 2).numpy())
    with torch.inference_mode():
        point_P = _outputs(location_encoder, center_12)
        rows = []
        for places_N2 in places_HW2.reshape(-1, 2).split(AT_ONCE):
            pairs = zip(_outputs(location_encoder, places_N2), point_P, strict=True)
            rows.append(torch.stack([torch.cosine_similarity(*pair) for pair in pairs]))
    cosine_PHW = torch.cat(rows, dim=1).reshape(-1, height, width).float().cpu().numpy()
    return ScaleSimilarity(
        sigmas=location_encoder.sigmas,
        center_deg=center_deg,
        extent_km=extent_km,
        branches_MHW=cosine_PHW[:-1],
        all_HW=cosine_PHW[-1],
        land_HW=(country_N != "").reshape(height, width),
        norms_M=np.array([float(branch_1D.norm()) for branch_1D in point_P[:-1]], dtype=np.float32),
    )


def _outputs(encoder: LocationEncoder, places_N2: Tensor) -> list[Tensor]:
    """(N, D) of every branch, which side by side may be narrower, and of the encoder as a whole, in one pass."""
    found = list[Tensor]()
    hooks = [
        branch.register_forward_hook(lambda _branch, _given, output: found.append(output))
        for branch in encoder.branches
    ]
    try:
        whole_ND = encoder(places_N2.float().to(next(encoder.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, whole_ND]


def _world(px: int) -> Tensor:
    """(px / 2, px, 2) middles of the pixels of an equirectangular map of the Earth."""
    step = 360 / px
    lat_H = 90 - step * (torch.arange(px // 2, dtype=torch.float64) + 0.5)
    lon_W = -180 + step * (torch.arange(px, dtype=torch.float64) + 0.5)
    return torch.stack(torch.meshgrid(lat_H, lon_W, indexing="ij"), dim=-1)


def _around(center_12: Tensor, extent_km: float, px: int) -> Tensor:
    """(px, px, 2) middles of the pixels of an azimuthal equidistant map."""
    offset_km = ((torch.arange(px, dtype=torch.float64) + 0.5) / px - 0.5) * extent_km
    north_HW, east_HW = torch.meshgrid(-offset_km, offset_km, indexing="ij")
    arc_N = torch.hypot(north_HW, east_HW).reshape(-1) / EARTH_RADIUS_KM
    azimuth_N = torch.atan2(east_HW, north_HW).reshape(-1)
    return destination(center_12.expand(len(arc_N), 2), arc_N, azimuth_N).reshape(px, px, 2)
