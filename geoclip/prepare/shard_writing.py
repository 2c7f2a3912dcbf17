"""Write webdataset shards and their index.json: equal counts, reproducible bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import webdataset as wds

from geoclip.data.shard_index import open_index
from geoclip.runs.run_dir import write_json
from geoclip.system.files import atomic_path, sha256_of

RawSample = dict[str, Any]


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardRecord:
    """An entry of index.json."""

    name: str
    samples: int
    bytes: int
    sha256: str


def distinct_key(key: str, written: set[str]) -> str:
    """This key, with a number appended if it is in `written`; adds the result to `written`."""
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
    """A file name such as 000000.tar."""
    return f"{number:06d}.tar"


def write_shards(folder: Path, split: str, samples: Iterator[RawSample], sizes: list[int]) -> None:
    """Write `samples` to 000000.tar … of these sizes, index.json, and the index that training reads first."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, size in enumerate(sizes):
        path = folder / shard_name(number)
        write_tar(path, islice(samples, size))
        open_index(path)
        records.append(record_shard(path, size))
    write_index(folder, split, records)


def write_tar(path: Path, samples: Iterable[RawSample]) -> int:
    """Write a shard atomically; the same samples give the same bytes on any machine. Returns their number."""
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
    """The entry of a shard in index.json; reads the complete file."""
    return ShardRecord(name=path.name, samples=samples, bytes=path.stat().st_size, sha256=sha256_of(path))


def write_index(folder: Path, split: str, records: list[ShardRecord]) -> int:
    """Write index.json, the last file of a split: counts, bytes and hashes. Returns the split's samples."""
    total = sum(record.samples for record in records)
    rows = [asdict(record) for record in records]
    write_json(folder / "index.json", {"format": 1, "split": split, "samples": total, "shards": rows}, indent=1)
    return total
