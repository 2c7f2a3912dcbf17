"""One tar shard, read to its last byte: hash, samples, and every picture decoded."""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoclip.data.batch import Skip
from geoclip.data.pictures import CHECK_PX, MAX_PIXELS, decode, full_size, open_picture
from geoclip.data.shard_index import ShardIndex, index_shard
from geoclip.data.workers import note
from geoclip.files import open_binary, sha256_of

FEATURES = b"\x93NUMPY"


def sample_table(keys: list[str], gps_deg_N2: NDArray[np.float64], size_N: NDArray[np.int64]) -> pd.DataFrame:
    """A row per sample: key, lat, lon, bytes of the picture, width and height in px (0 until it is decoded)."""
    lat, lon = (gps_deg_N2 + 0.0).T  # -0 and 0 are one number
    columns = {"key": pd.Series(keys, dtype=object), "lat": lat, "lon": lon, "bytes": size_N}
    return pd.DataFrame(columns).assign(width=0, height=0)


def _no_samples() -> pd.DataFrame:
    return sample_table([], np.empty((0, 2)), np.empty(0, dtype=np.int64))


@dataclass(kw_only=True, slots=True)
class ShardFindings:
    """What one tar holds."""

    path: str
    samples: pd.DataFrame = field(default_factory=_no_samples)  # with a picture and a place, in order
    bytes: int = 0
    sha256: str = ""
    formats: Counter[str] = field(default_factory=Counter)
    faults: list[Skip] = field(default_factory=list)  # members and samples that cannot be used
    broken: list[Skip] = field(default_factory=list)  # pictures that cannot be decoded; their size stays 0

    def __len__(self) -> int:
        return len(self.samples)


def examine_shard(path: str, max_pixels: int = MAX_PIXELS) -> ShardFindings:
    """Read a tar anew, whatever index was kept, and decode its pictures. A tar that cannot be read is a fault."""
    note(path)
    try:
        index = index_shard(Path(path))
        with open_binary(path) as file:
            findings = ShardFindings(
                path=path,
                samples=sample_table(index.keys, index.gps_deg_N2, index.size_N),
                bytes=os.path.getsize(path),
                sha256=sha256_of(Path(path)),
                faults=index.faults,
            )
            _examine_pictures(index, file.fileno(), findings, max_pixels)
    except OSError as error:
        fault = Skip(shard=os.path.basename(path), key="", reason=f"shard cannot be read ({error.strerror or error})")
        return ShardFindings(path=path, faults=[fault])
    return findings


def _examine_pictures(index: ShardIndex, file: int, findings: ShardFindings, max_pixels: int) -> None:
    size_px_N2 = np.zeros((len(index), 2), dtype=np.int64)
    for row, key in enumerate(index.keys):
        note(index.path, key)
        data = os.pread(file, int(index.size_N[row]), int(index.offset_N[row]))
        try:
            kind, size_px_N2[row] = _examine(data, max_pixels)
            findings.formats[kind] += 1
        except ValueError as error:
            findings.broken.append(Skip(shard=os.path.basename(index.path), key=key, reason=str(error)))
    findings.samples[["width", "height"]] = size_px_N2


def _examine(data: bytes, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Format, width and height of a picture that was decoded to its end; of features their format alone.

    Raises:
        ValueError: broken; the message is a short reason.
    """
    if not data.startswith(FEATURES):
        image = open_picture(data, max_pixels)
        decode(data, CHECK_PX, max_pixels=max_pixels)
        return image.format or "?", full_size(image)
    try:
        features = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as many kinds as there are ways to cut a file
        raise ValueError(f"unreadable features ({type(error).__name__})") from None
    if not np.isfinite(features).all():
        raise ValueError("features that are not finite")
    return "features", (0, 0)
