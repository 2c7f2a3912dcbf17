"""Shards: which there are, which of their samples an epoch reads, and reading samples by position."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import braceexpand
import numpy as np

from geoclip.data.account import Account, account_of
from geoclip.data.batch import Skip, SkipReport
from geoclip.data.shard_index import SampleRange, open_index, open_indices
from geoclip.errors import DataError

COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4|lzma|lz|z|br|7z|zip)|tgz|tbz2?|txz|tzst|tlz)$", re.IGNORECASE)
INCOMPLETE = re.compile(r"\.tar\.(part|partial|tmp|temp|download|crdownload|incomplete|filepart)$", re.IGNORECASE)
BELOW = "tar in a folder below"
FOLDERS_BELOW = 3  # so many levels of folders are searched for tars that are not read
SET_DATA = "set data.root and data.train / data.val"


@dataclass(kw_only=True, slots=True, frozen=True)
class Shard:
    """A tar file and the number of samples in it."""

    path: str
    samples: int


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardFiles:
    """The tars of one split, sorted by name, and what looks like one and is not read."""

    what: str
    paths: list[str]
    skipped: list[Skip]
    pattern: str  # as the user wrote it

    @property
    def account(self) -> Account:
        """In shards: how many samples a file holds that is not read is not known."""
        return account_of(self.what, len(self.paths), self.skipped, "shards")


def find_shards(root: str, pattern: str, fix: str = SET_DATA) -> ShardFiles:
    """The tars of one split.

    A folder's compressed tars, links to nothing and the like, and tars in folders below it are `skipped`. Every name
    that braces expand to must exist.

    Args:
        root: folder of the splits.
        pattern: below root, a folder of tar files or a pattern: `train`, `*.tar`, `mp-16-{000000..000393}.tar`,
            `train/**/*.tar` for tars in folders at any depth.
        fix: which keys name this folder, for messages.

    Raises:
        DataError: no shards there, a shard that the pattern names is missing, or an `index.json` beside them that is
            corrupt or names missing files.
    """
    place = Path(root) / pattern
    if place.is_dir():
        found = folder_shards(place, pattern or root)
        if found.paths and (place / "index.json").is_file():
            _compare(place / "index.json", found.paths)
    else:
        paths, skipped = _by_pattern(root, pattern, fix)
        found = ShardFiles(what=str(place), paths=sorted(set(paths)), skipped=skipped, pattern=pattern or root)
    if not found.paths:
        reasons = found.account.skipped.lines()
        raise DataError(
            f"no shards at {place}: expected a folder with *.tar or a pattern such as mp-16-{{000000..000393}}.tar; "
            f"{fix}{'; found there and not read: ' * bool(reasons)}{'; '.join(reasons)}{_hint(found)}"
        )
    return found


def refuse_skipped_shards(files: ShardFiles, max_bad_fraction: float, key: str) -> None:
    """End where a large part of the data set would not be read.

    Args:
        files: of one split.
        max_bad_fraction: the largest share of shards that may be skipped.
        key: of that limit, for the message.

    Raises:
        DataError: a larger share.
    """
    account = files.account
    folder = files.pattern.rstrip("/")
    leave_out = f", or leave them out: '{folder}/*.tar'" if os.path.isdir(files.what) else ""
    if files.skipped and account.skipped_share > max_bad_fraction:
        raise DataError(
            f"{len(files.skipped)} of {account.found} shards at {files.what} are not read, more than "
            f"{key}={max_bad_fraction:g}: {'; '.join(account.skipped.lines())}; move them away or unpack them"
            f"{leave_out}{_hint(files)}"
        )


def read_shards(root: str, pattern: str) -> list[Shard]:
    """The shards of one split, sorted by name, each with the samples that have a picture and a place.

    Headers are read where no index is kept yet (`open_index`).

    Raises:
        DataError: as `find_shards`; or a shard cannot be opened.
    """
    return count_samples(find_shards(root, pattern).paths)


def count_samples(paths: list[str]) -> list[Shard]:
    """`Shard` of each tar.

    Raises:
        DataError: a tar cannot be opened.
    """
    return [Shard(path=index.path, samples=len(index)) for index in open_indices(paths)]


def samples_account(what: str, shards: list[Shard]) -> Account:
    """What the tars' headers and jsons tell of samples that cannot be used, before a picture is read."""
    report = SkipReport()
    for shard in shards:
        report.add(open_index(shard.path).faults)
    return Account(what=what, used=sum(shard.samples for shard in shards), skipped=report)


def refuse_bad_shards(shards: list[Shard], max_bad_fraction: float, what: str) -> Account:
    """`samples_account`, where most samples can be used.

    Raises:
        DataError: it is a larger share than `max_bad_fraction`, or nothing is left.
    """
    account = samples_account(what, shards)
    if not account.found:
        raise DataError(f"no sample in the shards at {what}: each is a picture and a json of the same key")
    if not account.used or account.skipped_share > max_bad_fraction:
        report = account.skipped
        raise DataError(
            f"{report.counts.total()} of {account.found} samples in {account.what} cannot be used, more than "
            f"data.max_bad_fraction={max_bad_fraction:g}; most in {report.worst_shards()}: "
            f"{'; '.join(report.lines()[:3])}; rebuild these shards or raise the limit"
        )
    return account


def fingerprint(shards: list[Shard]) -> str:
    """Eight hex digits that name this set of shards: their names, counts and bytes, in whatever folder."""
    paths = [(Path(shard.path), shard.samples) for shard in shards]
    text = json.dumps([(path.name, samples, path.stat().st_size) for path, samples in paths])
    return sha256(text.encode()).hexdigest()[:8]


def shard_fault(path: str) -> str:
    """Why this file is no shard that can be read; empty for one that can."""
    name = os.path.basename(path)
    if COMPRESSED.search(name):
        return "compressed tar, of which no sample can be read alone: unpack it to .tar"
    if INCOMPLETE.search(name):
        return "incomplete download of a tar"
    if os.path.isfile(path):
        return ""
    if os.path.isdir(path):
        return "folder, not a tar"
    return "not a plain file" if os.path.exists(path) else "link to a missing file"


def folder_shards(folder: Path, pattern: str = "") -> ShardFiles:
    """The tars of a folder, which may be none, and what looks like one there or in folders below and is not read."""
    paths, skipped = _folder_tars(folder)
    levels = ("*/" * level + "*.[tT][aA][rR]" for level in range(1, FOLDERS_BELOW + 1))  # hidden ones do not match
    below = sorted(name for level in levels for name in glob.glob(level, root_dir=folder))
    skipped += [Skip(shard=name, key="", reason=BELOW) for name in below]
    return ShardFiles(what=str(folder), paths=paths, skipped=skipped, pattern=pattern)


def _folder_tars(folder: Path) -> tuple[list[str], list[Skip]]:
    """The tars of a folder itself, and what looks like one there and is not read."""
    paths, skipped = [], []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
    for name in names:
        looks = name.lower().endswith(".tar") or COMPRESSED.search(name) or INCOMPLETE.search(name)
        if name.startswith(".") or not looks:
            continue
        path = os.path.join(folder, name)
        if reason := shard_fault(path):
            skipped.append(Skip(shard=name, key="", reason=reason))
        else:
            paths.append(path)
    return paths, skipped


def _by_pattern(root: str, pattern: str, fix: str) -> tuple[list[str], list[Skip]]:
    try:
        names = list(braceexpand.braceexpand(pattern))
    except ValueError:  # UnbalancedBracesError
        raise DataError(f"the braces of {pattern} are not balanced; {fix}") from None
    paths, skipped, missing = list[str](), list[Skip](), list[str]()
    for name in names:
        exact = os.path.join(root, name)
        found = (
            [exact]
            if os.path.lexists(exact)
            else sorted(glob.glob(os.path.join(glob.escape(root), name), recursive=True))
        )
        if not found:
            missing.append(name)
        for path in found:
            if os.path.isdir(path) and not path.lower().endswith(".tar"):
                more, faults = _folder_tars(Path(path))
                paths, skipped = paths + more, skipped + faults
            elif reason := shard_fault(path):
                skipped.append(Skip(shard=os.path.basename(path), key="", reason=reason))
            else:
                paths.append(path)
    if missing and len(missing) < len(names):
        raise DataError(
            f"{len(missing)} of the {len(names)} shards that {pattern} names are missing in {root or '.'}: "
            f"{', '.join(missing[:3])}{' …' * (len(missing) > 3)}; copy them there, or name only what exists: {fix}"
        )
    return paths, skipped


def _hint(files: ShardFiles) -> str:
    """How to read tars in folders below."""
    below = sorted({skip.shard.rpartition("/")[0] for skip in files.skipped if skip.reason == BELOW})
    if not below:
        return ""
    return (
        f"; its folders {', '.join(below[:3])}{' …' * (len(below) > 3)} hold tars: name one of them, or all "
        f"tars at any depth: '{files.pattern}/**/*.tar'"
    )


def _compare(index: Path, paths: list[str]) -> None:
    """Every tar that the index names must be there, as long as it was when it was written."""
    try:
        rows = json.loads(index.read_text())["shards"]
        named = {str(index.parent / row["name"]): row.get("bytes") for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index} is damaged ({error!r}); delete it: the tars' headers tell the same") from error
    if missing := sorted(set(named) - set(paths)):
        raise DataError(f"{index} names {len(missing)} shards that are missing, first {missing[0]}")
    for path, size in named.items():
        if size is not None and size != Path(path).stat().st_size:
            raise DataError(
                f"{path} has {Path(path).stat().st_size:,} bytes, but {index.name} says {size:,}: it was cut short or "
                f"changed; copy it again, or delete {index} to read what is there"
            )


def all_samples(shards: list[Shard], limit: int | None = None) -> list[SampleRange]:
    """All samples of these shards in order, or the first `limit`."""
    left = sum(shard.samples for shard in shards) if limit is None else limit
    ranges = []
    for shard in shards:
        ranges.append(SampleRange(path=shard.path, start=0, stop=min(shard.samples, left)))
        left -= len(ranges[-1])
    return [span for span in ranges if len(span)]


def take_fraction(shards: list[Shard], fraction: float, seed: int) -> list[SampleRange]:
    """round(fraction * N) samples, at least one: whole shards in seeded order, the last one in part."""
    left = max(1, round(fraction * sum(shard.samples for shard in shards)))
    order = np.random.default_rng((seed, 0x5B5E7)).permutation(len(shards))
    taken = []
    for number in order:
        count = min(left, shards[number].samples)
        if count:
            taken.append(SampleRange(path=shards[number].path, start=0, stop=count))
            left -= count
    return taken


def stream_sizes(samples: int, streams: int) -> list[int]:
    """Samples of each stream in every epoch: all of them, equal to within one, the longer streams first."""
    return [samples // streams + (number < samples % streams) for number in range(streams)]


def assign_to_streams(subset: list[SampleRange], streams: int, seed: int, epoch: int) -> list[list[SampleRange]]:
    """The ranges of every stream in this epoch; stream i has `stream_sizes(…)[i]` samples."""
    order = np.random.default_rng((seed, epoch, 0xEB0C4)).permutation(len(subset))
    sizes = stream_sizes(sum(len(span) for span in subset), streams)
    dealt: list[list[SampleRange]] = [[] for _ in range(streams)]
    stream, room = 0, sizes[0]
    for number in order:
        path, start, stop = subset[number].path, subset[number].start, subset[number].stop
        while start < stop:
            if room == 0:
                stream, room = stream + 1, sizes[stream + 1]
                continue
            count = min(room, stop - start)
            dealt[stream].append(SampleRange(path=path, start=start, stop=start + count))
            start, room = start + count, room - count
    return dealt
