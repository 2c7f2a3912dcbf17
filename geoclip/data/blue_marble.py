"""Views of the Earth, cut from NASA's Blue Marble."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoclip.data.assets import asset_path
from geoclip.errors import AssetError
from geoclip.geo.geodesy import METRES_PER_DEGREE

log = logging.getLogger("geoclip")

MAP_PX = 2160  # width of a map's background


def read_earth(width_px: int | None = None) -> NDArray[np.uint8]:
    """(height, width, 3) NASA's Blue Marble, equirectangular: 90° at the top, -180° at the left.

    Args:
        width_px: scaled down to this width, for drawing on; None leaves the 5400 x 2700 pixels.

    Raises:
        AssetError: neither cached nor reachable.
    """
    with Image.open(asset_path("bmng.jpg")) as image:
        if width_px is not None:
            image.draft("RGB", (width_px, width_px // 2))
            return np.array(image.convert("RGB").resize((width_px, width_px // 2), Image.Resampling.LANCZOS))
        return np.array(image.convert("RGB"))


@cache
def map_background() -> NDArray[np.uint8]:
    """(H, W, 3) the Blue Marble to draw maps on; black, with a warning, where it can be neither read nor fetched."""
    try:
        return read_earth(MAP_PX)
    except AssetError as error:
        log.warning("maps without a background: %s", error)
        return np.zeros((2, 4, 3), dtype=np.uint8)


def pad_sideways(earth_3HW: Tensor) -> Tensor:
    """The image as float32 with one column of the other side at each edge, for seamless interpolation."""
    return F.pad(earth_3HW[None].float(), (1, 1, 0, 0), mode="circular")[0]


def cut_views(padded_3HW: Tensor, gps_deg_N2: Tensor, *, span_km: float, size_px: int) -> Tensor:
    """Square views around these places: north up, equal scale in both directions at the centre.

    Args:
        padded_3HW: `pad_sideways` of an equirectangular image, 90° at the top, -180° at the left.
        gps_deg_N2: (N, 2) the views' centres in degrees.
        span_km: side of a view, on the meridian through its centre.
        size_px: side of a view in pixels.

    Returns:
        (N, 3, size_px, size_px) uint8. A step east is a step north stretched by 1/cos(latitude), at most so far
        that the view reaches once around the Earth; views wrap over the antimeridian and are clamped at the poles.
    """
    _, height, padded_width = padded_3HW.shape
    width = padded_width - 2
    span_deg = span_km * 1000 / METRES_PER_DEGREE
    step = (torch.arange(size_px, dtype=torch.float64) + 0.5) / size_px - 0.5  # of the span, from the centre
    lat, lon = gps_deg_N2.double().unbind(-1)
    span_lon_N = (span_deg / lat.deg2rad().cos().clamp(min=1e-9)).clamp(max=360.0)
    lat_NS = lat[:, None] - step * span_deg
    lon_NS = lon[:, None] + step * span_lon_N[:, None]
    # Pixel i covers [i, i + 1) * 360 / width degrees from -180; one column was put before the first.
    column_NS = torch.remainder((lon_NS + 180) / 360 * width - 0.5, width) + 1
    row_NS = (90 - lat_NS) / 180 * height - 0.5
    x_NS = (column_NS + 0.5) / padded_width * 2 - 1
    y_NS = (row_NS + 0.5) / height * 2 - 1
    grid_NSS2 = torch.stack(
        (x_NS[:, None, :].expand(-1, size_px, -1), y_NS[:, :, None].expand(-1, -1, size_px)), dim=-1
    ).float()
    count = gps_deg_N2.shape[0]
    if count == 0:
        return torch.empty((0, 3, size_px, size_px), dtype=torch.uint8)
    # One tall grid instead of a batch: the image is then not repeated per view.
    tall_1HW2 = grid_NSS2.reshape(1, count * size_px, size_px, 2)
    cut = F.grid_sample(padded_3HW[None], tall_1HW2, mode="bilinear", padding_mode="border", align_corners=False)
    views = cut[0].reshape(3, count, size_px, size_px).transpose(0, 1)
    return views.round().clamp(0, 255).to(torch.uint8)
