"""Webdataset shards and their index: equal counts, reproducible bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

RawSample = dict[str, Any]


def shard_sizes(samples: int, samples_per_shard: int) -> list[int]:
    """Samples of each shard: equal to within one, at most `samples_per_shard`, largest first."""
    shards = max(1, -(-samples // samples_per_shard))
    return [len(part) for part in np.array_split(np.arange(samples), shards)]


def write_shards(folder: Path, split: str, samples: Iterator[RawSample], sizes: list[int]) -> None:
    """Write `samples` to 000000.tar … of these sizes, and index.json with counts, bytes and hashes.

    The same samples give the same bytes: no time, user or mode of this machine is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, size in enumerate(sizes):
        path = folder / f"{number:06d}.tar"
        with wds.TarWriter(
            str(path), mtime=0, user="geoclip", group="geoclip", mode=0o644, encoder=False
        ) as tar:
            for _ in range(size):
                tar.write(next(samples))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows.append({"name": path.name, "samples": size, "bytes": path.stat().st_size, "sha256": digest})
    index = {"format": 1, "split": split, "samples": sum(sizes), "shards": rows}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
