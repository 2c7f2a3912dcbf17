"""Which shards there are and how many samples each holds."""

from __future__ import annotations

import contextlib
import glob
import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import braceexpand
from tqdm import tqdm
from webdataset.tariterators import base_plus_ext

from geoclip.errors import DataError
from geoclip.run_dir import write_text


@dataclass(kw_only=True, slots=True, frozen=True)
class Shard:
    """A tar file and the number of samples in it."""

    path: str
    samples: int


def read_shards(root: str, pattern: str) -> list[Shard]:
    """The shards of one split, sorted by name.

    Args:
        root: folder of the splits.
        pattern: below root, a folder of tar files or a pattern: `train`, `*.tar`, `mp-16-{000000..000393}.tar`.

    An `index.json` beside the shards gives the counts; without one every tar's headers are read once and the
    counts are kept beside the shards, where that folder can be written.

    Raises:
        DataError: no shards there, an unreadable tar, or an index that names missing files.
    """
    place = Path(root) / pattern
    if place.is_dir():
        index = place / "index.json"
        if index.is_file():
            return _read_index(index)
        paths = sorted(str(path) for path in place.glob("*.tar"))
    else:
        paths = sorted(path for one in braceexpand.braceexpand(str(place)) for path in glob.glob(one))
    if not paths:
        raise DataError(
            f"no shards at {place}: expected a folder with *.tar or a pattern such as mp-16-{{000000..000393}}.tar; "
            "set data.root and data.train / data.val"
        )
    return _count(paths)


def fingerprint(shards: list[Shard]) -> str:
    """Eight hex digits that name this set of shards: their names, counts and bytes, wherever they lie."""
    paths = [(Path(shard.path), shard.samples) for shard in shards]
    text = json.dumps([(path.name, samples, path.stat().st_size) for path, samples in paths])
    return sha256(text.encode()).hexdigest()[:8]


def _read_index(index: Path) -> list[Shard]:
    try:
        rows = json.loads(index.read_text())["shards"]
        shards = [Shard(path=str(index.parent / row["name"]), samples=int(row["samples"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{index} is damaged ({error!r}); delete it to have the shards counted again"
        ) from error
    missing = [shard.path for shard in shards if not Path(shard.path).is_file()]
    if missing:
        raise DataError(f"{index} names {len(missing)} shards that are missing, first {missing[0]}")
    return sorted(shards, key=lambda shard: shard.path)


def _count(paths: list[str]) -> list[Shard]:
    """Read the headers of tars that have no index, and keep the counts where that can be done."""
    kept = Path(paths[0]).parent / ".geoclip-counts.json"
    try:
        known: dict[str, list[int]] = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    shards = []
    for path in tqdm(paths, desc="counting samples", unit="shard", disable=len(paths) < 20):
        stamp = [Path(path).stat().st_size, Path(path).stat().st_mtime_ns]
        row = known.get(Path(path).name)
        if row is None or row[:2] != stamp:
            row = known[Path(path).name] = [*stamp, _samples_in(path)]
        shards.append(Shard(path=path, samples=row[2]))
    with contextlib.suppress(OSError):  # a folder that cannot be written is counted again next time
        write_text(kept, json.dumps(known))
    return shards


def _samples_in(path: str) -> int:
    keys = set()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isreg():
                    keys.add(base_plus_ext(member.name)[0])
    except tarfile.TarError:
        pass  # what lies before the damage still counts; the stream reports the shard by name
    return len(keys - {None})
