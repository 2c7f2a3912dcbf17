"""Coordinates out of CSV files, in every layout that the field's files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from geoclip.errors import DataError

COLUMNS = {"lat": "lat", "latitude": "lat", "lon": "lon", "lng": "lon", "longitude": "lon"}
KEY_COLUMNS = ("img_file", "img_id", "name", "id", "key", "path")


def read_places(path: Path, what: str) -> pd.DataFrame:
    """A CSV with its coordinate columns named `lat` and `lon`, and its picture column, if any, named `key`.

    Args:
        path: CSV with LAT, LON or latitude, longitude or lat, lon, and IMG_FILE, IMG_ID, name, id, key or path
            (any case).
        what: what the file is, for messages: "gallery", "benchmark".

    Raises:
        DataError: no file, no such columns, no rows, or a row without coordinates in range, named by its line.
    """
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys((*KEY_COLUMNS, *map(str.upper, KEY_COLUMNS)), str))
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    lower = {str(name).lower(): name for name in rows}
    names = {lower[name]: ours for name, ours in COLUMNS.items() if name in lower}
    key = next((lower[name] for name in KEY_COLUMNS if name in lower), None)
    rows = rows.rename(columns=names | ({key: "key"} if key is not None else {}))
    if "lat" not in rows or "lon" not in rows:
        raise DataError(
            f"{what} {path} has the columns {', '.join(map(str, lower.values()))}; needed are LAT and LON"
        )
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
