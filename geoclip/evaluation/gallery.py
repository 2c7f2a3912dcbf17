"""Galleries: the coordinates that a prediction is drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.errors import DataError

COLUMNS = {"lat": "lat", "latitude": "lat", "lon": "lon", "lng": "lon", "longitude": "lon"}


@dataclass(kw_only=True, slots=True, frozen=True)
class Gallery:
    """Coordinates to retrieve from."""

    name: str
    gps_deg_G2: Tensor  # float64, as the file has them: latitude, longitude in degrees

    @property
    def sha256(self) -> str:
        """Hash of the coordinates, whatever the file they came from looked like."""
        return hashlib.sha256(np.ascontiguousarray(self.gps_deg_G2.numpy()).tobytes()).hexdigest()


def read_places(path: Path, what: str) -> pd.DataFrame:
    """A CSV with its coordinate columns named `lat` and `lon`; other columns as they are.

    Args:
        path: CSV with LAT, LON or latitude, longitude or lat, lon (any case).
        what: what the file is, for messages: "gallery", "benchmark".

    Raises:
        DataError: no file, no such columns, no rows, or a row without coordinates in range, named by its line.
    """
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    rows = rows.rename(columns={name: COLUMNS[str(name).lower()] for name in rows if str(name).lower() in COLUMNS})
    if "lat" not in rows or "lon" not in rows:
        raise DataError(f"{what} {path} has the columns {', '.join(map(str, rows))}; needed are LAT and LON")
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


def read_gallery(path: Path, name: str) -> Gallery:
    """A gallery from a CSV of coordinates.

    Raises:
        DataError: as `read_places`.
    """
    gps_deg = read_places(path, "gallery")[["lat", "lon"]].to_numpy(np.float64)
    return Gallery(name=name, gps_deg_G2=torch.from_numpy(gps_deg.copy()))


@torch.inference_mode()
def encode_gallery(location_encoder: nn.Module, gallery: Gallery, device: torch.device, chunk: int = 2048) -> Tensor:
    """(G, D) unit vectors, float32, on `device`. The chunks fit a processor's cache."""
    rows = [
        F.normalize(location_encoder(part.float().to(device)).float(), dim=1) for part in gallery.gps_deg_G2.split(chunk)
    ]
    return torch.cat(rows)
