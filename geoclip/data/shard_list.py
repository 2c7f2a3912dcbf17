"""Which shards there are and how many samples each holds."""

from __future__ import annotations

import glob
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import braceexpand

from geoclip.data.batch import SkipReport
from geoclip.data.shard_index import open_index, open_indices
from geoclip.errors import DataError


@dataclass(kw_only=True, slots=True, frozen=True)
class Shard:
    """A tar file and the number of samples in it."""

    path: str
    samples: int


def shard_paths(root: str, pattern: str) -> list[str]:
    """The tars of one split, sorted by name.

    Args:
        root: folder of the splits.
        pattern: below root, a folder of tar files or a pattern: `train`, `*.tar`, `mp-16-{000000..000393}.tar`.

    Raises:
        DataError: no shards there, or an `index.json` beside them that is damaged or names missing files.
    """
    place = Path(root) / pattern
    if place.is_dir():
        paths = sorted(str(path) for path in place.glob("*.tar"))
        if (place / "index.json").is_file():
            _compare(place / "index.json", paths)
    else:
        paths = sorted(path for one in braceexpand.braceexpand(str(place)) for path in glob.glob(one))
    if not paths:
        raise DataError(
            f"no shards at {place}: expected a folder with *.tar or a pattern such as mp-16-{{000000..000393}}.tar; "
            "set data.root and data.train / data.val"
        )
    return paths


def read_shards(root: str, pattern: str) -> list[Shard]:
    """The shards of one split, sorted by name, each with the samples that have a picture and a place.

    Headers are read where no index is kept yet (`open_index`).

    Raises:
        DataError: as `shard_paths`.
    """
    return [Shard(path=index.path, samples=len(index)) for index in open_indices(shard_paths(root, pattern))]


def refuse_bad_shards(shards: list[Shard], max_bad_fraction: float) -> SkipReport:
    """What the tars' headers and jsons tell of samples that cannot be used, before a picture is read.

    Raises:
        DataError: it is a larger share than `max_bad_fraction`, or nothing is left.
    """
    report = SkipReport()
    for shard in shards:
        report.add(open_index(shard.path).faults)
    good, bad = sum(shard.samples for shard in shards), report.counts.total()
    if not good or bad > max_bad_fraction * (good + bad):
        raise DataError(
            f"{bad} of {good + bad} samples in {Path(shards[0].path).parent} cannot be used, more than "
            f"data.max_bad_fraction={max_bad_fraction:g}; most in {report.worst_shards()}: "
            f"{'; '.join(report.lines()[:3])}; rebuild these shards or raise the limit"
        )
    return report


def fingerprint(shards: list[Shard]) -> str:
    """Eight hex digits that name this set of shards: their names, counts and bytes, wherever they lie."""
    paths = [(Path(shard.path), shard.samples) for shard in shards]
    text = json.dumps([(path.name, samples, path.stat().st_size) for path, samples in paths])
    return sha256(text.encode()).hexdigest()[:8]


def _compare(index: Path, paths: list[str]) -> None:
    """Every tar that the index names must be there."""
    try:
        named = [str(index.parent / row["name"]) for row in json.loads(index.read_text())["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{index} is damaged ({error!r}); delete it: the tars' headers tell the same"
        ) from error
    if missing := sorted(set(named) - set(paths)):
        raise DataError(f"{index} names {len(missing)} shards that are missing, first {missing[0]}")
