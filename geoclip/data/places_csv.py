"""Coordinates out of CSV files, in every layout that the field's files have."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from geoclip.errors import DataError

COLUMNS = {"lat": "lat", "latitude": "lat", "lon": "lon", "lng": "lon", "longitude": "lon"}
KEY_COLUMNS = ("img_file", "img_id", "name", "id", "key", "path")


@dataclass(kw_only=True, slots=True, frozen=True)
class Columns:
    """What a file calls its columns; empty where nobody said, or where there is none."""

    key: str = ""
    lat: str = ""
    lon: str = ""


def find_columns(header: list[str], what: str, named: Columns | None = None) -> Columns:
    """The columns of coordinates and of pictures' names.

    Args:
        header: a file's column names; LAT, LON or latitude, longitude or lat, lon or lng, and IMG_FILE, IMG_ID, name,
            id, key or path are known, in any case. The first of these lists that the file has is taken.
        what: the file, for messages.
        named: columns that the user named; these very names must be there.

    Returns:
        Their names in `header`; `key` is empty where none is known.

    Raises:
        DataError: no coordinates, or a named column that is not there.
    """
    named = named or Columns()
    for axis in fields(named):
        name = getattr(named, axis.name)
        if name and name not in header:
            raise DataError(
                f"{what} has no column {name!r}, which columns.{axis.name} names; it has {', '.join(header)}"
            )
    lower = {name.strip().lower(): name for name in reversed(header)}

    def first(spellings: tuple[str, ...]) -> str:
        return next((lower[spelling] for spelling in spellings if spelling in lower), "")

    found = Columns(
        key=named.key or first(KEY_COLUMNS),
        lat=named.lat or first(tuple(name for name in COLUMNS if COLUMNS[name] == "lat")),
        lon=named.lon or first(tuple(name for name in COLUMNS if COLUMNS[name] == "lon")),
    )
    if not found.lat or not found.lon:
        names = ", ".join(name.lower() for name in header)
        raise DataError(f"{what} has the columns {names}; needed are LAT and LON")
    return found


def read_places(path: Path, what: str, named: Columns | None = None) -> pd.DataFrame:
    """A CSV with its coordinate columns named `lat` and `lon`, and its picture column, if any, named `key`.

    Args:
        path: CSV with the columns that `find_columns` knows.
        what: what the file is, for messages: "gallery", "benchmark".
        named: see `find_columns`.

    Raises:
        DataError: no file, no such columns, no rows, or a row without coordinates in range, named by its line.
    """
    try:
        header = [str(name) for name in pd.read_csv(path, nrows=0)]
        columns = find_columns(header, f"{what} {path}", named)
        rows = pd.read_csv(path, dtype={columns.key: str} if columns.key else None)
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    ours = {columns.lat: "lat", columns.lon: "lon"} | ({columns.key: "key"} if columns.key else {})
    others = [
        name for name in rows if name not in ours and name in ours.values()
    ]  # what a named column hides
    rows = rows.drop(columns=others).rename(columns=ours)
    if rows.empty:
        raise DataError(f"{what} {path} has no rows")
    gps = rows[["lat", "lon"]].apply(pd.to_numeric, errors="coerce")
    good = gps["lat"].between(-90, 90) & gps["lon"].between(-180, 180)  # NaN is between nothing
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        lat, lon = rows[["lat", "lon"]].iloc[row]
        raise DataError(
            f"{what} {path}, line {row + 2}: latitude {lat}, longitude {lon} is no place on Earth "
            f"({int((~good).sum())} such rows); mend or remove them"
        )
    return rows.assign(lat=gps["lat"], lon=gps["lon"])
