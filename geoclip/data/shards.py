"""Find the shards of a split, count their samples, select a fraction, and assign samples to streams."""

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

from geoclip.data.batch import Account, Skip, SkipReport, account_of
from geoclip.data.shard_index import SampleRange, open_index, open_indices
from geoclip.errors import DataError

COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4|lzma|lz|z|br|7z|zip)|tgz|tbz2?|txz|tzst|tlz)$", re.IGNORECASE)
INCOMPLETE = re.compile(r"\.tar\.(part|partial|tmp|temp|download|crdownload|incomplete|filepart)$", re.IGNORECASE)
BELOW = "tar in a folder below"
FOLDERS_BELOW = 3  # levels of subfolders that are searched for tars that are not read
SET_DATA = "set data.root and data.train / data.val"


@dataclass(kw_only=True, slots=True, frozen=True)
class Shard:
    """A tar file and the number of samples in it."""

    path: str
    samples: int


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardFiles:
    """The tars of one split, sorted by name, and similar files that are not read."""

    what: str  # folder or pattern, for messages
    paths: list[str]
    skipped: list[Skip]
    pattern: str  # as the user wrote it

    @property
    def account(self) -> Account:
        """In shards: the samples of files that are not read are unknown."""
        return account_of(self.what, len(self.paths), self.skipped, "shards")


def find_shards(root: str, pattern: str, fix: str = SET_DATA) -> ShardFiles:
    """The tars of one split; compressed tars, tars in subfolders, broken links and the like are `skipped`.

    Args:
        root: folder of the splits.
        pattern: below root, a folder of tar files or a pattern: `train`, `*.tar`, `mp-16-{000000..000393}.tar`,
            `train/**/*.tar` for tars at any depth. Every name that braces expand to must exist.
        fix: the keys that set this folder, for messages.

    Raises:
        DataError: no shards, a shard of the pattern is missing, or an `index.json` beside them is corrupt or names
            missing files.
    """
    path = Path(root) / pattern
    if path.is_dir():
        found = folder_shards(path, pattern or root)
        if found.paths and (path / "index.json").is_file():
            _check_index(path / "index.json", found.paths)
    else:
        paths, skipped = _by_pattern(root, pattern, fix)
        found = ShardFiles(what=str(path), paths=sorted(set(paths)), skipped=skipped, pattern=pattern or root)
    if not found.paths:
        reasons = found.account.skipped.lines()
        raise DataError(
            f"no shards at {path}: expected a folder with *.tar or a pattern such as mp-16-{{000000..000393}}.tar; "
            f"{fix}{'; found there and not read: ' * bool(reasons)}{'; '.join(reasons)}{_hint(found)}"
        )
    return found


def refuse_skipped_shards(files: ShardFiles, max_bad_fraction: float, key: str) -> None:
    """Raise DataError if more than `max_bad_fraction` (configuration key `key`) of a split's shards are skipped."""
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
    """The shards of one split, sorted by name, with their numbers of usable samples; raises as `find_shards`."""
    return count_samples(find_shards(root, pattern).paths)


def count_samples(paths: list[str]) -> list[Shard]:
    """`Shard` of each tar. Raises DataError: a tar cannot be opened."""
    return [Shard(path=index.path, samples=len(index)) for index in open_indices(paths)]


def samples_account(what: str, shards: list[Shard]) -> Account:
    """The account of these shards, from their indices; no picture is read."""
    report = SkipReport()
    for shard in shards:
        report.add(open_index(shard.path).faults)
    return Account(what=what, used=sum(shard.samples for shard in shards), skipped=report)


def refuse_bad_shards(shards: list[Shard], max_bad_fraction: float, what: str) -> Account:
    """`samples_account`. Raises DataError: no usable sample, or more than `max_bad_fraction` skipped."""
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
    """Eight hex digits of the shards' names, counts and bytes; the folder does not matter."""
    rows = [(os.path.basename(shard.path), shard.samples, os.path.getsize(shard.path)) for shard in shards]
    return sha256(json.dumps(rows).encode()).hexdigest()[:8]


def shard_fault(path: str) -> str:
    """Why this file cannot be read as a shard; empty if it can."""
    name = os.path.basename(path)
    if COMPRESSED.search(name):
        return "compressed tar, whose samples cannot be read one by one: unpack it to .tar"
    if INCOMPLETE.search(name):
        return "incomplete download of a tar"
    if os.path.isfile(path):
        return ""
    if os.path.isdir(path):
        return "folder, not a tar"
    return "not a plain file" if os.path.exists(path) else "link to a missing file"


def folder_shards(folder: Path, pattern: str = "") -> ShardFiles:
    """The tars of a folder, possibly none, and similar files there and tars in subfolders, which are not read."""
    paths, skipped = _folder_tars(folder)
    levels = ("*/" * level + "*.[tT][aA][rR]" for level in range(1, FOLDERS_BELOW + 1))  # hidden ones do not match
    below = sorted(name for level in levels for name in glob.glob(level, root_dir=folder))
    skipped += [Skip(shard=name, key="", reason=BELOW) for name in below]
    return ShardFiles(what=str(folder), paths=paths, skipped=skipped, pattern=pattern)


def _folder_tars(folder: Path) -> tuple[list[str], list[Skip]]:
    """The tars directly in a folder, and similar files there that are not read."""
    paths, skipped = [], []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
    for name in names:
        similar = name.lower().endswith(".tar") or COMPRESSED.search(name) or INCOMPLETE.search(name)
        if name.startswith(".") or not similar:
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
        found = [os.path.join(root, name)]
        if not os.path.lexists(found[0]):
            found = sorted(glob.glob(os.path.join(glob.escape(root), name), recursive=True))
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
            f"{len(missing)} of the {len(names)} shards of {pattern} are missing in {root or '.'}: "
            f"{', '.join(missing[:3])}{' …' * (len(missing) > 3)}; copy them there, or name existing shards: {fix}"
        )
    return paths, skipped


def _hint(files: ShardFiles) -> str:
    """How to read tars in subfolders, if there are any."""
    below = sorted({skip.shard.rpartition("/")[0] for skip in files.skipped if skip.reason == BELOW})
    if not below:
        return ""
    return (
        f"; its folders {', '.join(below[:3])}{' …' * (len(below) > 3)} contain tars: use one of them, or "
        f"all tars at any depth: '{files.pattern}/**/*.tar'"
    )


def _check_index(index: Path, paths: list[str]) -> None:
    """Raise DataError unless every tar in the index exists and has the recorded size."""
    try:
        rows = json.loads(index.read_text())["shards"]
        named = {str(index.parent / row["name"]): row.get("bytes") for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index} is corrupt ({error!r}); delete it: the tars' headers contain the same") from error
    if missing := sorted(set(named) - set(paths)):
        raise DataError(f"{index} names {len(missing)} shards that are missing, first {missing[0]}")
    for path, size in named.items():
        if size is not None and size != Path(path).stat().st_size:
            raise DataError(
                f"{path} has {Path(path).stat().st_size:,} bytes, but {size:,} in {index.name}: it was truncated or "
                f"changed; copy it again, or delete {index} to use it as it is"
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
    """round(fraction * N) samples, at least one: complete shards in seeded order, the last one in part."""
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
    ranges: list[list[SampleRange]] = [[] for _ in range(streams)]
    stream, missing = 0, sizes[0]
    for number in order:
        path, start, stop = subset[number].path, subset[number].start, subset[number].stop
        while start < stop:
            if missing == 0:
                stream, missing = stream + 1, sizes[stream + 1]
                continue
            count = min(missing, stop - start)
            ranges[stream].append(SampleRange(path=path, start=start, stop=start + count))
            start, missing = start + count, missing - count
    return ranges
