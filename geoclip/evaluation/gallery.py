"""Galleries: the coordinates that a prediction is drawn from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.data.batch import copied_to
from geoclip.data.galleries.countries import alpha2_codes, countries_of
from geoclip.data.tables import read_gps_deg
from geoclip.errors import DataError
from geoclip.files import sha256_of_array
from geoclip.geo.geodesy import in_box
from geoclip.model.local_encoding import local_embeddings
from geoclip.model.location_encoder import LocationEncoder

CPU_CHUNK = 1024  # rows whose hidden layers fit into a processor's cache
GPU_CHUNK = 131_072  # rows that keep a GPU busy longer than their kernels take to launch


@dataclass(kw_only=True, slots=True, frozen=True)
class Gallery:
    """Coordinates to retrieve from."""

    name: str
    gps_deg_G2: Tensor  # float64, as the file has them: latitude, longitude in degrees

    @property
    def sha256(self) -> str:
        """Hash of the coordinates, whatever the file they came from looked like."""
        return sha256_of_array(self.gps_deg_G2.numpy())


def read_gallery(path: Path, name: str) -> Gallery:
    """A gallery from a CSV of coordinates.

    Raises:
        DataError: as `read_gps_deg`.
    """
    return Gallery(name=name, gps_deg_G2=torch.from_numpy(read_gps_deg(path, "gallery")))


def restricted(
    gallery: Gallery, box_deg: tuple[float, float, float, float] | None, countries: Sequence[str] = ()
) -> Gallery:
    """The gallery's locations in a box and in these countries, under a name that lists them.

    Args:
        gallery: all locations.
        box_deg: south, west, north, east; west > east crosses the antimeridian. None: anywhere.
        countries: ISO 3166 codes; none: anywhere.

    Raises:
        DataError: no location is left, or a code that no country has.
    """
    places_G2 = gallery.gps_deg_G2.numpy()
    kept_G = np.ones(len(places_G2), dtype=np.bool_)
    parts = [gallery.name]
    if box_deg is not None:
        kept_G &= in_box(places_G2, box_deg)
        parts.append(f"box {' '.join(f'{edge:g}' for edge in box_deg)}")
    if countries:
        codes = alpha2_codes(countries)
        kept_G[kept_G] = np.isin(countries_of(places_G2[kept_G]), codes)
        parts.append(" ".join(codes))
    if not kept_G.any():
        raise DataError(f"none of the {len(places_G2):,} locations of the gallery are in {', '.join(parts[1:])}")
    if kept_G.all():
        return gallery
    return Gallery(name=", ".join(parts), gps_deg_G2=gallery.gps_deg_G2[torch.from_numpy(kept_G)])


@torch.inference_mode()
def encode_gallery(
    location_encoder: nn.Module, gallery: Gallery, device: torch.device, chunk: int | None = None
) -> Tensor:
    """(G, D) unit vectors, float32, on `device`.

    Args:
        location_encoder: on the device.
        gallery: coordinates.
        device: where the embeddings are made and stay.
        chunk: rows at a time; None: what suits the device.
    """
    encoder = without_denormals(location_encoder)
    if isinstance(encoder, LocationEncoder) and device.type == "cpu":
        return local_embeddings(encoder, gallery.gps_deg_G2.float(), chunk or CPU_CHUNK)
    gps_deg_G2 = copied_to(gallery.gps_deg_G2.float(), device)
    parts = gps_deg_G2.split(chunk or (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK))
    return torch.cat([F.normalize(encoder(part_N2).float(), dim=1) for part_N2 in parts])


@torch.no_grad()
def without_denormals(module: nn.Module) -> nn.Module:
    """The module, or a copy of it in which weights too small for float32's normal range (1.2e-38) are 0.

    Weight decay leaves such numbers in units that no longer fire: 96,859 of the released location encoder's weights.
    They change no result, but a processor multiplies them some seventy times slower. GPUs do not care.
    """
    tiny = torch.finfo(torch.float32).tiny
    small = [one.is_cpu and bool(((one != 0) & (one.abs() < tiny)).any()) for one in module.parameters()]
    if not any(small):
        return module
    module = copy.deepcopy(module)
    for one in module.parameters():
        one.masked_fill_(one.abs() < tiny, 0)
    return module
