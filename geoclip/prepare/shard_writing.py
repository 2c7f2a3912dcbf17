"""Webdataset shards and their index: equal counts, reproducible bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import webdataset as wds

from geoclip.data.shard_index import open_index
from geoclip.system.files import atomic_path, sha256_of, write_text_atomic

RawSample = dict[str, Any]


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardRecord:
    """A shard as index.json tells of it."""

    name: str
    samples: int
    bytes: int
    sha256: str


def distinct_key(key: str, written: set[str]) -> str:
    """This key, or with a number behind it where it was written before; it is then among those written."""
    numbered = (f"{key}_{number}" for number in count(2))
    found = next(name for name in chain((key,), numbered) if name not in written)
    written.add(found)
    return found


def shard_sizes(samples: int, samples_per_shard: int) -> list[int]:
    """Samples of each shard: equal to within one, at most `samples_per_shard`, largest first."""
    shards = max(1, -(-samples // samples_per_shard))
    least, larger = divmod(samples, shards)
    return [least + 1] * larger + [least] * (shards - larger)


def shard_name(number: int) -> str:
    """000000.tar …: as many digits as sort by name."""
    return f"{number:06d}.tar"


def write_shards(folder: Path, split: str, samples: Iterator[RawSample], sizes: list[int]) -> None:
    """Write `samples` to 000000.tar … of these sizes, index.json, and what `open_index` would have to read first."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, size in enumerate(sizes):
        path = folder / shard_name(number)
        write_tar(path, islice(samples, size))
        open_index(path)
        records.append(record_shard(path, size))
    write_index(folder, split, records)


def write_tar(path: Path, samples: Iterable[RawSample]) -> int:
    """Write a shard that is whole or absent, whenever the process dies. Returns its samples.

    The same samples give the same bytes: no time, user or mode of this machine is written.
    """
    written = 0
    with (
        atomic_path(path) as partial,
        partial.open("wb") as file,
        wds.TarWriter(file, mtime=0, user="geoclip", group="geoclip", mode=0o644, encoder=False) as tar,
    ):
        for sample in samples:
            tar.write(sample)
            written += 1
    return written


def record_shard(path: Path, samples: int) -> ShardRecord:
    """What index.json tells of a shard; its bytes are read."""
    return ShardRecord(name=path.name, samples=samples, bytes=path.stat().st_size, sha256=sha256_of(path))


def write_index(folder: Path, split: str, records: list[ShardRecord]) -> int:
    """index.json, the last file of a split to be written: counts, bytes and hashes. Returns the split's samples."""
    total = sum(record.samples for record in records)
    rows = [asdict(record) for record in records]
    text = json.dumps({"format": 1, "split": split, "samples": total, "shards": rows}, indent=1)
    write_text_atomic(folder / "index.json", text + "\n")
    return total
