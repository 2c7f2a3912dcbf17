"""Where a gallery's coordinates come from: a CSV, tar shards, or the released gallery."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoclip.data.account import account_of
from geoclip.data.assets import RELEASED, asset_path
from geoclip.data.shard_index import open_indices
from geoclip.data.shard_list import find_shards
from geoclip.data.tables import read_gps_deg
from geoclip.files import sha256_of, sha256_of_array


@dataclass(kw_only=True, slots=True, frozen=True)
class SourcedPlaces:
    """Coordinates, and what identifies the files that they came from."""

    gps_deg_N2: NDArray[np.float64]
    made_of: dict[str, Any]


def csv_places(path: Path, what: str) -> SourcedPlaces:
    """The coordinates of a CSV in any layout of `geoclip.data.tables`.

    Raises:
        DataError: as `read_coordinates`.
    """
    gps_deg_N2 = read_gps_deg(path, what)
    made_of = {"file": path.name, "rows": len(gps_deg_N2), "sha256": sha256_of(path)}
    return SourcedPlaces(gps_deg_N2=gps_deg_N2, made_of=made_of)


def shard_places(root: str, pattern: str = "") -> SourcedPlaces:
    """The coordinates of tar shards, out of their headers and jsons: no picture is read.

    Args:
        root: see `find_shards`.
        pattern: see `find_shards`; with an empty one, root itself is the folder or the pattern.

    Raises:
        DataError: as `find_shards`; or a shard cannot be opened.
    """
    files = find_shards(root, pattern, "name such a folder")
    files.account.log()
    indices = open_indices(files.paths, desc="reading coordinates")
    gps_deg_N2 = np.concatenate([index.gps_deg_N2 for index in indices])
    skipped = [skip for index in indices for skip in index.faults]
    account_of(files.what, len(gps_deg_N2), skipped).log()
    return SourcedPlaces(
        gps_deg_N2=gps_deg_N2,
        made_of={
            "shards": len(indices),
            "samples": len(gps_deg_N2),
            "bytes": sum(os.path.getsize(path) for path in files.paths),
            "coordinates_sha256": hash_of_set(gps_deg_N2),
        },
    )


def released_places() -> SourcedPlaces:
    """The gallery that the authors of GeoCLIP released.

    Raises:
        AssetError: neither cached nor reachable.
    """
    found = csv_places(asset_path("gallery_100k.csv"), "released gallery")
    return SourcedPlaces(
        gps_deg_N2=found.gps_deg_N2,
        made_of=found.made_of | {"wheel": RELEASED.requirement, "wheel_sha256": RELEASED.sha256},
    )


def hash_of_set(gps_deg_N2: NDArray[np.float64]) -> str:
    """SHA-256 of these coordinates, whatever their order, as float64 latitude and longitude."""
    rows = gps_deg_N2[np.lexsort((gps_deg_N2[:, 1], gps_deg_N2[:, 0]))]
    return sha256_of_array(rows)
