"""Galleries: the coordinates that predictions are chosen from, their cached embeddings, and the ceiling they set."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoclip.data.batch import copied_to
from geoclip.data.countries import alpha2_codes, countries_of
from geoclip.data.tables import read_gps_deg
from geoclip.errors import DataError
from geoclip.evaluation.metrics import Floats, nearest_location_km, percent_within, verbatim_count
from geoclip.geo.geodesy import in_box
from geoclip.model.location_encoder import LocationEncoder, local_embeddings
from geoclip.system.files import atomic_path, sha256_of_array

log = logging.getLogger("geoclip")

CPU_CHUNK = 1024  # rows: their hidden layers fit into the cache
GPU_CHUNK = 131_072  # rows: enough to hide the launch of kernels
FORMAT = 1  # increase it when results of `encode_gallery` change by more than rounding
LEAST_CACHED = 10_000  # locations: fewer are encoded as fast as a file is read
HASHED_TYPES = (bool, int, float, str, tuple)
LARGEST_BYTES = 5_000_000_000  # of all cached galleries; the least recently used are removed first


@dataclass(kw_only=True, slots=True, frozen=True)
class Gallery:
    """Coordinates to retrieve from."""

    name: str
    gps_deg_G2: Tensor  # float64 latitude, longitude in degrees, as in the file

    @property
    def sha256(self) -> str:
        """Hash of the coordinates, independent of the file's format."""
        return sha256_of_array(self.gps_deg_G2.numpy())


def read_gallery(path: Path, name: str) -> Gallery:
    """A gallery from a CSV of coordinates; errors as of `read_gps_deg`."""
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
        DataError: no location is left, or an unknown code.
    """
    locations_G2 = gallery.gps_deg_G2.numpy()
    kept_G = np.ones(len(locations_G2), dtype=np.bool_)
    parts = [gallery.name]
    if box_deg is not None:
        kept_G &= in_box(locations_G2, box_deg)
        parts.append(f"box {' '.join(f'{edge:g}' for edge in box_deg)}")
    if countries:
        codes = alpha2_codes(countries)
        kept_G[kept_G] = np.isin(countries_of(locations_G2[kept_G]), codes)
        parts.append(" ".join(codes))
    if not kept_G.any():
        raise DataError(f"none of the {len(locations_G2):,} locations of the gallery are in {', '.join(parts[1:])}")
    if kept_G.all():
        return gallery
    return Gallery(name=", ".join(parts), gps_deg_G2=gallery.gps_deg_G2[torch.from_numpy(kept_G)])


@torch.inference_mode()
def encode_gallery(
    location_encoder: nn.Module, gallery: Gallery, device: torch.device, chunk: int | None = None
) -> Tensor:
    """(G, D) unit vectors, float32, on `device`, where the encoder is; `chunk` rows at a time, None: by device."""
    encoder = without_denormals(location_encoder)
    if isinstance(encoder, LocationEncoder) and device.type == "cpu":
        return local_embeddings(encoder, gallery.gps_deg_G2.float(), chunk or CPU_CHUNK)
    gps_deg_G2 = copied_to(gallery.gps_deg_G2.float(), device)
    parts = gps_deg_G2.split(chunk or (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK))
    return torch.cat([F.normalize(encoder(part_N2).float(), dim=1) for part_N2 in parts])


@torch.no_grad()
def without_denormals(module: nn.Module) -> nn.Module:
    """The module, or a copy of it in which weights below float32's normal range (1.2e-38) are 0.

    Weight decay produces such numbers in units that no longer fire: 96,859 of the released location encoder's weights.
    They change no result, but CPUs multiply them about seventy times slower.
    """
    tiny = torch.finfo(torch.float32).tiny
    small = [one.is_cpu and bool(((one != 0) & (one.abs() < tiny)).any()) for one in module.parameters()]
    if not any(small):
        return module
    module = copy.deepcopy(module)
    for one in module.parameters():
        one.masked_fill_(one.abs() < tiny, 0)
    return module


def embedded_gallery(
    location_encoder: nn.Module, gallery: Gallery, device: torch.device, folder: Path | None
) -> Tensor:
    """As `encode_gallery`, with a cache on disk, whose key is the hash of weights and coordinates.

    A corrupt file is replaced. A folder that cannot be written to causes a warning. None: no cache.
    """
    if folder is None or len(gallery.gps_deg_G2) < LEAST_CACHED:
        return encode_gallery(location_encoder, gallery, device)
    path = folder / f"{_key(location_encoder, gallery)}.safetensors"
    cached = _read(path, len(gallery.gps_deg_G2))
    if cached is not None:
        return cached.to(device)
    gallery_GD = encode_gallery(location_encoder, gallery, device)
    try:
        with atomic_path(path) as partial:
            save_file({"gallery_GD": gallery_GD.cpu().contiguous()}, partial)
        _remove_oldest(folder)
    except (OSError, SafetensorError) as error:
        log.warning("the embedded gallery is not cached: %s", error)
    return gallery_GD


def _key(location_encoder: nn.Module, gallery: Gallery) -> str:
    """SHA-256 of everything that determines the embeddings."""
    digest = hashlib.sha256(f"{FORMAT} {location_encoder} {gallery.sha256}".encode())
    for module in location_encoder.modules():  # attributes that are no weights: projection, concat, degree
        digest.update(type(module).__qualname__.encode())
        for name, value in sorted(vars(module).items()):
            if isinstance(value, HASHED_TYPES) and name != "training" and not name.startswith("_"):
                digest.update(f"{name}={value!r}".encode())
    for name, one in sorted(location_encoder.state_dict().items()):
        digest.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
        digest.update(one.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _read(path: Path, size: int) -> Tensor | None:
    if not path.exists():
        return None
    try:
        gallery_GD = load_file(path)["gallery_GD"]
    except (OSError, SafetensorError, KeyError) as error:
        log.warning("%s cannot be read (%s): the gallery is encoded again", path, error)
        return None
    with suppress(OSError):  # files of other users are readable too
        os.utime(path)  # marks it as used now
    return gallery_GD if len(gallery_GD) == size else None


def _remove_oldest(folder: Path) -> None:
    """Remove the least recently used galleries until the others fit into LARGEST_BYTES."""
    found = []
    for path in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process removed it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    total_bytes = 0
    for _, size_bytes, path in sorted(found, reverse=True):
        total_bytes += size_bytes
        if total_bytes > LARGEST_BYTES:
            path.unlink(missing_ok=True)


def measure_ceiling(test_deg_N2: Floats, gallery_deg_G2: Floats) -> dict[str, Any]:
    """The best that a perfect model could reach on (N, 2) test locations with a (G, 2) gallery, in degrees.

    Median distance in km to the nearest location of the gallery, share of test locations in percent within each
    distance of it, and the number of test locations that the gallery contains verbatim, which flatters results.
    """
    nearest_km_N = nearest_location_km(test_deg_N2, gallery_deg_G2)
    return {
        "n": len(test_deg_N2),
        "ceiling_percent": {str(km): share for km, share in percent_within(nearest_km_N).items()},
        "median_km": float(np.median(nearest_km_N)),
        "verbatim_in_gallery": verbatim_count(test_deg_N2, gallery_deg_G2),
    }
