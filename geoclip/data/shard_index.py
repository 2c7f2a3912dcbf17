"""The index of a shard: each sample's offset in the tar, its coordinates, and the faults. Nothing else parses tars."""

from __future__ import annotations

import json
import os
import tarfile
import time
import weakref
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from geoclip.data.assets import cache_dir
from geoclip.data.batch import Sample, Skip
from geoclip.data.coordinates import coordinates_of
from geoclip.data.pictures import PICTURE_SUFFIXES, suffix_of, unreadable_reason
from geoclip.data.workers import note
from geoclip.errors import DataError
from geoclip.system.files import atomic_path, open_binary, open_regular

BLOCK = 512
EMPTY_SHARD = "empty shard"
HEADER_BYTES = 1 << 20  # longest header, extended ones included


@dataclass(kw_only=True, slots=True, frozen=True)
class Member:
    """A file inside a tar."""

    name: str
    offset: int  # of its first byte
    size: int

    @property
    def suffix(self) -> str:
        """See `suffix_of`."""
        return suffix_of(self.name)

    @property
    def key(self) -> str:
        """The path up to its suffix: keys may contain dots, unlike webdataset's."""
        return self.name.rpartition(".")[0] if self.suffix else self.name


def tar_members(file: BinaryIO, fault: Callable[[str, str], None]) -> Iterator[Member]:
    """Every complete file in an uncompressed tar, in order, without hidden ones.

    After a corrupt header, reading continues at the next valid one. `fault(key, reason)` is called for every file that
    cannot be used.
    """
    end = os.fstat(file.fileno()).st_size
    expected, is_cut = 0, False
    for info, after in _headers(file, end):
        if info.offset != expected:
            fault("", "corrupt tar header")
        expected = after
        name = PurePosixPath(info.name)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            fault(info.name, "not a plain file")
        elif name.is_absolute() or ".." in name.parts:
            fault(info.name, "path traversal in its name")
        elif "\0" in info.name:
            fault(info.name.replace("\0", ""), "null character in its name")
        elif info.size < 0:
            fault(info.name, "negative size in its header")
        elif info.offset_data + info.size > end:
            fault(info.name, "shard ends early")
            is_cut = True
        elif not name.name.startswith("."):
            yield Member(name=str(name), offset=info.offset_data, size=info.size)
    if expected <= end:
        _check_end(file, expected, fault)
    elif not is_cut:  # cut within the padding of the last block
        fault("", "shard ends early")


def _check_end(file: BinaryIO, expected: int, fault: Callable[[str, str], None]) -> None:
    """Report a tar that does not end in blocks of zeros."""
    file.seek(expected)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        fault("", "shard ends early" if expected else "no tar")
    elif any(block):
        fault("", "corrupt tar header" if expected else "no tar")
    elif not expected:
        fault("", EMPTY_SHARD)


class _Bounded:
    """Limits the length of tarfile's reads, because a corrupt header can contain any length."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        """Read bytes. Raises ValueError: more than HEADER_BYTES, or a negative number."""
        if not 0 <= size <= HEADER_BYTES:
            raise ValueError("invalid length of a header")
        return self._file.read(size)


def _headers(file: BinaryIO, end: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Headers read by tarfile, each with the offset of the next; after a corrupt one, reading continues a block later.

    The offset always grows, so that the loop ends: a header of negative size would move tarfile backwards.
    """
    start = 0
    while start < end:
        file.seek(start)
        try:
            tar = tarfile.open(fileobj=_Bounded(file), mode="r:", ignore_zeros=True)  # type: ignore[call-overload]  # noqa: SIM115 -- the file is the caller's
            while (info := tar.next()) is not None:
                vars(tar)["members"].clear()  # tarfile would store them all
                after, start = tar.offset, max(tar.offset, info.offset_data)
                yield info, start
                if after < info.offset_data:
                    break  # and continue after this header
            else:
                return
        except Exception:  # corrupt extended headers raise exceptions of any kind
            start += BLOCK


PAYLOADS = frozenset((*PICTURE_SUFFIXES, "npy"))  # npy: features of a frozen encoder
JSON_BYTES = 1 << 20  # largest json of a sample
STALE_S = 86_400  # older partial files are deleted: writing an index takes less than a day
FORMAT = 3  # version of the index on disk and of the reader of jsons


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardIndex:
    """The samples of one tar that have a picture (or features) and coordinates, in the order of their pictures."""

    path: str
    keys: list[str]
    offset_N: NDArray[np.int64]  # of the picture's first byte
    size_N: NDArray[np.int64]  # of the picture, in bytes
    gps_deg_N2: NDArray[np.float64]
    faults: list[Skip]

    def __len__(self) -> int:
        return len(self.keys)


def index_shard(path: Path) -> ShardIndex:
    """Read a tar's headers and jsons, never its pictures.

    A picture and a json of the same key are a sample, adjacent or not; keys may contain dots. `7.mask.png` beside
    `7.jpg` and `7.json` is no fault: its key is a sample's key, a dot and more, so it belongs to that sample. Of a
    truncated or corrupt tar the complete samples are indexed; the rest is in `faults`.

    Raises:
        OSError: the file cannot be opened.
    """
    faults: list[Skip] = []

    def fault(key: str, reason: str) -> None:
        samples = int(reason != EMPTY_SHARD)
        faults.append(Skip(shard=path.name, key=key, reason=reason, samples=samples))

    pictures: dict[str, Member] = {}
    jsons: dict[str, Member] = {}
    others: dict[str, str] = {}  # reasons of members that are neither
    with open_binary(path, buffering=2048) as file:  # a header, a json and the next header at a time
        for member in tar_members(file, fault):
            note(str(path), member.key)
            kind = pictures if member.suffix in PAYLOADS else jsons if member.suffix == "json" else None
            if kind is None:
                if member.suffix and (reason := unreadable_reason(member.name)):
                    others[member.key] = reason
            elif member.key in kind:
                fault(member.key, "key occurs twice")
            else:
                kind[member.key] = member
        samples = pictures.keys() & jsons.keys()
        keys, gps_deg = [], []
        for key in sorted(samples, key=lambda key: pictures[key].offset):
            try:
                text = os.pread(file.fileno(), min(jsons[key].size, JSON_BYTES), jsons[key].offset)
                gps_deg.append(coordinates_of(text))
                keys.append(key)
            except ValueError as error:
                fault(key, str(error))
    for key in dict.fromkeys((*pictures, *jsons, *others)):
        if key not in samples and not _belongs_to(key, samples):
            fault(key, "no json" if key in pictures else others.get(key, "no picture"))
    rows = [pictures[key] for key in keys]
    return ShardIndex(
        path=str(path),
        keys=keys,
        offset_N=np.array([row.offset for row in rows], dtype=np.int64),
        size_N=np.array([row.size for row in rows], dtype=np.int64),
        gps_deg_N2=np.array(gps_deg, dtype=np.float64).reshape(-1, 2),
        faults=faults,
    )


def _belongs_to(key: str, samples: Set[str]) -> bool:
    """Whether this key, cut at one of the dots in its file name, is the key of a sample."""
    dots = (at for at, letter in enumerate(key) if letter == "." and "/" not in key[at:])
    return any(key[:at] in samples for at in dots)


def open_index(path: str | Path) -> ShardIndex:
    """`index_shard`, cached in `.geoclip-index/` beside the tar, or in the user's cache if that is not writable.

    The tar is read again if its size or modification time has changed. Raises OSError: the tar cannot be opened.
    """
    path = Path(path)
    status = path.stat()
    stamp = [FORMAT, status.st_size, status.st_mtime_ns]
    cache_paths = _cache_paths(path)
    for cached in cache_paths:
        if (found := _load(cached, path, stamp)) is not None:
            return found
    index = index_shard(path)
    for cached in cache_paths:
        with suppress(OSError):  # not writable
            _save(cached, index, stamp)
            break
    return index


def open_indices(paths: list[str], *, desc: str = "indexing shards") -> list[ShardIndex]:
    """`open_index` of many shards, in threads. Raises DataError: a tar cannot be opened."""
    from tqdm import tqdm

    with ThreadPoolExecutor(8) as pool:
        found = pool.map(open_index, paths)
        try:
            return list(tqdm(found, total=len(paths), desc=desc, unit="shard", disable=len(paths) < 20, delay=1))
        except OSError as error:
            raise DataError(f"{error.filename or 'a shard'} cannot be read: {error.strerror or error}") from None


def _cache_paths(path: Path) -> tuple[Path, Path]:
    folder = path.resolve().parent
    elsewhere = cache_dir() / "shard-index" / sha256(str(folder).encode()).hexdigest()[:16]
    return folder / ".geoclip-index" / f"{path.name}.npz", elsewhere / f"{path.name}.npz"


def _save(cached: Path, index: ShardIndex, stamp: list[int]) -> None:
    _remove_stale(cached.parent)
    with atomic_path(cached) as partial, partial.open("wb") as file:
        np.savez(
            file,
            stamp=np.array(stamp, dtype=np.int64),
            keys=np.frombuffer("\0".join(index.keys).encode("utf-8", "surrogateescape"), dtype=np.uint8),
            offset=index.offset_N,
            size=index.size_N,
            gps_deg=index.gps_deg_N2,
            faults=np.frombuffer(json.dumps([asdict(skip) for skip in index.faults]).encode(), dtype=np.uint8),
        )


@cache
def _remove_stale(folder: Path) -> None:
    """Delete partial files of killed processes from a folder of indices: those older than a day."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):  # another process has deleted it
            if time.time() - partial.stat().st_mtime > STALE_S:
                partial.unlink()


def _load(cached: Path, path: Path, stamp: list[int]) -> ShardIndex | None:
    """The cached index; None if it is missing, corrupt, or of another version of the tar."""
    try:
        with open_binary(cached) as file, np.load(file, allow_pickle=False) as arrays:
            if arrays["stamp"].tolist() != stamp:
                return None
            text = arrays["keys"].tobytes().decode("utf-8", "surrogateescape")
            index = ShardIndex(
                path=str(path),
                keys=text.split("\0") if text else [],
                offset_N=arrays["offset"],
                size_N=arrays["size"],
                gps_deg_N2=arrays["gps_deg"],
                faults=[Skip(**skip) for skip in json.loads(arrays["faults"].tobytes())],
            )
    except Exception:  # corrupt files raise exceptions of any kind; the tar is read instead
        return None
    count = len(index.keys)
    if [index.offset_N.shape, index.size_N.shape, index.gps_deg_N2.shape] != [(count,), (count,), (count, 2)]:
        return None
    inside = (
        (index.offset_N >= 0) & (index.size_N >= 0) & (index.offset_N + index.size_N <= stamp[1])
    )  # bytes of the tar
    return index if inside.all() else None


@dataclass(kw_only=True, slots=True, frozen=True)
class SampleRange:
    """Samples start … stop-1 of one shard, by their position in its index."""

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class OpenShard:
    """A tar and its index; the file is open as long as this object exists."""

    def __init__(self, path: str) -> None:
        self.index = open_index(path)
        self.name = os.path.basename(path)
        self._file = open_regular(path)
        weakref.finalize(self, os.close, self._file)

    def read(self, position: int, epoch: int = 0) -> Sample:
        """The sample at a position; one read. Raises DataError: the tar has fewer samples than when the run started."""
        index = self.index
        if position >= len(index):
            raise DataError(
                f"{index.path} has {len(index)} samples, but had more when this run started; restore the file, or "
                "start the command again"
            )
        note(index.path, index.keys[position])
        lat, lon = index.gps_deg_N2[position].tolist()
        return Sample(
            shard=self.name,
            key=index.keys[position],
            data=os.pread(self._file, int(index.size_N[position]), int(index.offset_N[position])),
            gps_deg=(lat, lon),
            epoch=epoch,
        )


def read_samples(ranges: list[SampleRange]) -> Iterator[Sample]:
    """All samples of these ranges, in order."""
    for span in ranges:
        shard = OpenShard(span.path)
        for position in range(span.start, span.stop):
            yield shard.read(position)


def coordinates_in(ranges: list[SampleRange], count: int) -> NDArray[np.float64]:
    """(N, 2) degrees of the first `count` samples of these ranges, from the indices alone."""
    parts, left = [np.empty((0, 2))], count
    for span in ranges:
        if left <= 0:
            break
        parts.append(open_index(span.path).gps_deg_N2[span.start : span.stop][:left])
        left -= len(parts[-1])
    return np.concatenate(parts)
