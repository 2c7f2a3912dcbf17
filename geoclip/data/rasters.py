"""What lies at a place, from rasters that ship in wheels: land or sea, and how high. Nothing is asked of a network."""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray

from geoclip.data.assets import asset_path
from geoclip.errors import GeoclipError
from geoclip.geo.geodesy import uniform_on_sphere

LAND = 1  # in the mask; 0 is sea, 2 a lake
MASK_SHAPE = (8640, 17280)  # 1.25 minutes of arc: 2.3 km at the equator
ALTITUDE_STEP_M, ALTITUDE_LOWEST_M, NO_ALTITUDE = 28, -450, 255  # as `pvlib.location.lookup_altitude` decodes

Degrees = NDArray[np.float64]


@cache
def land_sea_mask() -> NDArray[np.uint8]:
    """(8640, 17280) sea, land or lake: -90° in the first row, -180° in the first column; 150 MB, read once.

    The coast is that of GSHHG at full resolution, Wessel, Smith, "A global, self-consistent, hierarchical,
    high-resolution shoreline database", J. Geophysical Research 101(B4), 1996, as Basemap rasterised it.

    Raises:
        AssetError: the wheel of Basemap's data is neither cached nor reachable.
    """
    with gzip.open(asset_path("land_sea.bin")) as file:
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(MASK_SHAPE)


def is_land(gps_deg_N2: Degrees) -> NDArray[np.bool_]:
    """(N,) whether each place lies on land; lakes do not.

    Raises:
        AssetError: as `land_sea_mask`.
    """
    land: NDArray[np.bool_] = _looked_up(land_sea_mask(), gps_deg_N2) == LAND
    return land


def elevation_m(gps_deg_N2: Degrees) -> NDArray[np.float64]:
    """(N,) metres above the sea, in steps of 28 from -450; a cell is 5 minutes of arc. NaN where nothing is known.

    Mapzen's terrain tiles, scaled down by pvlib, in whose package they lie. Nothing is known at sea and near the
    south pole: of land it is 1 %.

    Raises:
        GeoclipError: pvlib or h5py is not installed.
    """
    code_N = _looked_up(_altitudes(), gps_deg_N2)
    metres_N = code_N.astype(np.float64) * ALTITUDE_STEP_M + ALTITUDE_LOWEST_M
    return np.where(code_N == NO_ALTITUDE, np.nan, metres_N)


def uniform_on_land(count: int, seed: int) -> Degrees:
    """(count, 2) places in degrees, uniform by area on what the mask calls land.

    Raises:
        AssetError: as `land_sea_mask`.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn, found = [], 0
    while found < count:
        places_N2 = uniform_on_sphere(max(1024, 4 * (count - found)), generator).double().numpy()
        drawn.append(places_N2[is_land(places_N2)])
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


def _looked_up(raster_HW: NDArray[np.uint8], gps_deg_N2: Degrees) -> NDArray[np.uint8]:
    """(N,) the pixel that every place lies in; 180° is -180°, and the poles belong to the outermost rows."""
    height, width = raster_HW.shape
    row_N = np.clip(np.floor((gps_deg_N2[:, 0] + 90) / 180 * height), 0, height - 1).astype(np.int64)
    column_N = np.floor((gps_deg_N2[:, 1] + 180) / 360 * width).astype(np.int64) % width
    found: NDArray[np.uint8] = raster_HW[row_N, column_N]
    return found
