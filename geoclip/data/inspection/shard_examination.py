"""One tar shard, read to its last byte: hash, samples, and every picture decoded."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoclip.data.batch import Skip
from geoclip.data.pictures import MAX_PIXELS, decode, full_size, open_picture
from geoclip.data.shard_index import ShardIndex, index_shard
from geoclip.data.workers import note
from geoclip.files import open_binary, sha256_of

CHECK_PX = 32  # a JPEG is read to its end whatever its scale, and the smaller the faster
FEATURES = b"\x93NUMPY"


def no_numbers() -> NDArray[np.int64]:
    """Of a shard without samples."""
    return np.empty(0, dtype=np.int64)


@dataclass(kw_only=True, slots=True)
class ShardFindings:
    """What one tar holds. Rows are its samples that have a picture and a place, in order."""

    path: str
    bytes: int = 0
    sha256: str = ""
    key_hash_N: NDArray[np.int64] = field(
        default_factory=no_numbers
    )  # 64 bits of each key's hash: millions must fit
    sample_hash_N: NDArray[np.int64] = field(default_factory=no_numbers)  # of key and coordinates together
    gps_deg_N2: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    picture_bytes_N: NDArray[np.int64] = field(default_factory=no_numbers)
    size_px_N2: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, 2), dtype=np.int64)
    )  # width, height
    formats: Counter[str] = field(default_factory=Counter)
    faults: list[Skip] = field(default_factory=list)  # members and samples that cannot be used
    broken: list[Skip] = field(default_factory=list)  # pictures that cannot be decoded; their size stays 0

    def __len__(self) -> int:
        return len(self.key_hash_N)


def examine_shard(path: str, max_pixels: int = MAX_PIXELS) -> ShardFindings:
    """Read a tar anew, whatever index was kept, and decode its pictures. A tar that cannot be read is a fault."""
    name = os.path.basename(path)
    note(path)
    try:
        index = index_shard(Path(path))
        findings = ShardFindings(
            path=path,
            bytes=os.path.getsize(path),
            sha256=sha256_of(Path(path)),
            key_hash_N=_hashes(index.keys),
            sample_hash_N=_hashes(
                [
                    f"{key}\0{lat}\0{lon}"
                    for key, (lat, lon) in zip(index.keys, (index.gps_deg_N2 + 0.0).tolist(), strict=True)
                ]
            ),
            gps_deg_N2=index.gps_deg_N2,
            picture_bytes_N=index.size_N,
            size_px_N2=np.zeros((len(index), 2), dtype=np.int64),
            faults=index.faults,
        )
        _examine_pictures(index, findings, max_pixels)
    except OSError as error:
        fault = Skip(shard=name, key="", reason=f"shard cannot be read ({error.strerror or error})")
        return ShardFindings(path=path, faults=[fault])
    return findings


def _examine_pictures(index: ShardIndex, findings: ShardFindings, max_pixels: int) -> None:
    with open_binary(index.path) as file:
        for row, key in enumerate(index.keys):
            note(index.path, key)
            data = os.pread(file.fileno(), int(index.size_N[row]), int(index.offset_N[row]))
            try:
                kind, findings.size_px_N2[row] = _examine(data, max_pixels)
                findings.formats[kind] += 1
            except ValueError as error:
                findings.broken.append(Skip(shard=os.path.basename(index.path), key=key, reason=str(error)))


def _examine(data: bytes, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Format, width and height of a picture that was decoded to its end; of features their format alone.

    Raises:
        ValueError: broken; the message is a short reason.
    """
    if data.startswith(FEATURES):
        return _examine_features(data), (0, 0)
    image = open_picture(data, max_pixels)
    decode(data, CHECK_PX, max_pixels=max_pixels)
    return image.format or "?", full_size(image)


def _examine_features(data: bytes) -> str:
    try:
        features = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as many kinds as there are ways to cut a file
        raise ValueError(f"unreadable features ({type(error).__name__})") from None
    if not np.isfinite(features).all():
        raise ValueError("features that are not finite")
    return "features"


def _hashes(keys: list[str]) -> NDArray[np.int64]:
    digests = b"".join(
        hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys
    )
    return np.frombuffer(digests, dtype=np.int64)
