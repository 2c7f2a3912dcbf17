"""Webdataset shards and their index: equal counts, reproducible bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from geoclip.run_dir import write_text

RawSample = dict[str, Any]


def shard_sizes(samples: int, samples_per_shard: int) -> list[int]:
    """Samples of each shard: equal to within one, at most `samples_per_shard`, largest first."""
    shards = max(1, -(-samples // samples_per_shard))
    return [len(part) for part in np.array_split(np.arange(samples), shards)]


def write_shards(folder: Path, split: str, samples: Iterator[RawSample], sizes: list[int]) -> None:
    """Write `samples` to 000000.tar … of these sizes, and index.json with counts, bytes and hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.tar" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        write_tar(path, islice(samples, size))
    write_index(folder, split, list(zip(paths, sizes, strict=True)))


def write_tar(path: Path, samples: Iterable[RawSample]) -> int:
    """Write a shard that is whole or absent, whenever the process dies. Returns its samples.

    The same samples give the same bytes: no time, user or mode of this machine is written.
    """
    partial = path.with_name(f".{path.name}.partial")
    written = 0
    with partial.open("wb") as file:
        with wds.TarWriter(file, mtime=0, user="geoclip", group="geoclip", mode=0o644, encoder=False) as tar:
            for sample in samples:
                tar.write(sample)
                written += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return written


def write_index(folder: Path, split: str, shards: list[tuple[Path, int]]) -> int:
    """index.json, the last file of a split to be written: counts, bytes and hashes. Returns the split's samples."""
    rows = []
    for path, samples in shards:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows.append({"name": path.name, "samples": samples, "bytes": path.stat().st_size, "sha256": digest})
    total = sum(samples for _, samples in shards)
    write_text(
        folder / "index.json",
        json.dumps({"format": 1, "split": split, "samples": total, "shards": rows}, indent=1) + "\n",
    )
    return total
