"""Galleries: the coordinates that a prediction is drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.data.places_csv import read_places


@dataclass(kw_only=True, slots=True, frozen=True)
class Gallery:
    """Coordinates to retrieve from."""

    name: str
    gps_deg_G2: Tensor  # float64, as the file has them: latitude, longitude in degrees

    @property
    def sha256(self) -> str:
        """Hash of the coordinates, whatever the file they came from looked like."""
        return hashlib.sha256(np.ascontiguousarray(self.gps_deg_G2.numpy()).tobytes()).hexdigest()


def read_gallery(path: Path, name: str) -> Gallery:
    """A gallery from a CSV of coordinates.

    Raises:
        DataError: as `read_places`.
    """
    gps_deg = read_places(path, "gallery")[["lat", "lon"]].to_numpy(np.float64)
    return Gallery(name=name, gps_deg_G2=torch.from_numpy(gps_deg.copy()))


@torch.inference_mode()
def encode_gallery(
    location_encoder: nn.Module, gallery: Gallery, device: torch.device, chunk: int = 2048
) -> Tensor:
    """(G, D) unit vectors, float32, on `device`. The chunks fit a processor's cache."""
    rows = [
        F.normalize(location_encoder(part.float().to(device)).float(), dim=1)
        for part in gallery.gps_deg_G2.split(chunk)
    ]
    return torch.cat(rows)
