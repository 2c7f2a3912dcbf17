"""Embedded galleries on disk, so that no gallery is encoded twice by the same weights."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.files import atomic_path

log = logging.getLogger("geoclip")

FORMAT = 1  # another when what `encode_gallery` returns changes by more than rounding
LEAST_PLACES = 10_000  # fewer are encoded as soon as a file is read
PLAIN = (bool, int, float, str, tuple)
LARGEST_BYTES = 5_000_000_000  # of all files together; the longest unused go first


def embedded_gallery(
    location_encoder: nn.Module, gallery: Gallery, device: torch.device, folder: Path | None
) -> Tensor:
    """As `encode_gallery`: (G, D) unit vectors, float32, on `device`; from disk where they were encoded before.

    Args:
        location_encoder: whose every weight decides which file it is.
        gallery: whose coordinates do, too; its name does not.
        device: of the encoder and of what is returned.
        folder: of the kept galleries; None: encode, keep nothing.

    A file that cannot be read is made anew, and a folder that cannot be written costs a warning and nothing else.
    """
    if folder is None or len(gallery.gps_deg_G2) < LEAST_PLACES:
        return encode_gallery(location_encoder, gallery, device)
    path = folder / f"{_key(location_encoder, gallery)}.safetensors"
    kept = _read(path, len(gallery.gps_deg_G2))
    if kept is not None:
        return kept.to(device)
    gallery_GD = encode_gallery(location_encoder, gallery, device)
    try:
        with atomic_path(path) as partial:
            save_file({"gallery_GD": gallery_GD.cpu().contiguous()}, partial)
        _make_room(folder)
    except (OSError, SafetensorError) as error:
        log.warning("the embedded gallery is not kept for the next call: %s", error)
    return gallery_GD


def _key(location_encoder: nn.Module, gallery: Gallery) -> str:
    """SHA-256 of all that decides the embeddings."""
    digest = hashlib.sha256(f"{FORMAT} {location_encoder} {gallery.sha256}".encode())
    for module in location_encoder.modules():  # what is no weight: projection, concat, degree
        digest.update(type(module).__qualname__.encode())
        for name, value in sorted(vars(module).items()):
            if isinstance(value, PLAIN) and name != "training" and not name.startswith("_"):
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
        log.warning("%s cannot be read (%s): the gallery is encoded anew", path, error)
        return None
    with suppress(OSError):  # others' files can be read all the same
        os.utime(path)  # used last
    return gallery_GD if len(gallery_GD) == size else None


def _make_room(folder: Path) -> None:
    """Remove the galleries that were not used for longest, until the others fit."""
    found = []
    for path in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process made room just now
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    total_bytes = 0
    for _, size_bytes, path in sorted(found, reverse=True):
        total_bytes += size_bytes
        if total_bytes > LARGEST_BYTES:
            path.unlink(missing_ok=True)
