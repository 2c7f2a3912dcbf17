"""The members of a tar, also of a damaged one, by its headers alone."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from geoclip.data.picture_kinds import suffix_of

BLOCK = 512
EMPTY_SHARD = "empty shard"
HEADER_BYTES = 1 << 20  # no header is longer, extended ones included


@dataclass(kw_only=True, slots=True, frozen=True)
class Member:
    """A file inside a tar."""

    name: str
    offset: int  # of its first byte
    size: int

    @property
    def suffix(self) -> str:
        """What follows the last dot, in lower case."""
        return suffix_of(self.name)

    @property
    def key(self) -> str:
        """The path up to the last dot: keys may hold dots, unlike webdataset's."""
        return self.name.rpartition(".")[0] if self.suffix else self.name


def tar_members(file: BinaryIO, fault: Callable[[str, str], None]) -> Iterator[Member]:
    """Every whole file inside an uncompressed tar, in order, without hidden ones.

    Behind a corrupt header the next good one is sought. What cannot be used is reported by `fault(key, reason)`.
    """
    end = os.fstat(file.fileno()).st_size
    expected, is_cut = 0, False
    for info, after in _headers(file, end):
        if info.offset != expected:
            fault("", "damaged tar header")
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
        _check_the_end(file, expected, fault)
    elif not is_cut:  # within what fills the last member's block
        fault("", "shard ends early")


def _check_the_end(file: BinaryIO, expected: int, fault: Callable[[str, str], None]) -> None:
    """A tar closes with blocks of zeros; without them something is missing."""
    file.seek(expected)
    closing = file.read(BLOCK)
    if len(closing) < BLOCK:
        fault("", "shard ends early" if expected else "no tar")
    elif any(closing):
        fault("", "damaged tar header" if expected else "no tar")
    elif not expected:
        fault("", EMPTY_SHARD)


class _Bounded:
    """A file for tarfile, which reads nothing but headers: whatever length a corrupt one claims."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        """At most `HEADER_BYTES`.

        Raises:
            ValueError: more, or a negative number.
        """
        if not 0 <= size <= HEADER_BYTES:
            raise ValueError("the length of a header")
        return self._file.read(size)


def _headers(file: BinaryIO, end: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Headers as tarfile reads them, each with the offset of the next; after one it refuses, one block further on.

    The offset always grows, so that this ends: a header with a negative size would lead tarfile back to itself.
    """
    start = 0
    while start < end:
        file.seek(start)
        try:
            tar = tarfile.open(fileobj=_Bounded(file), mode="r:", ignore_zeros=True)  # type: ignore[call-overload]  # noqa: SIM115 -- the file is the caller's
            while (info := tar.next()) is not None:
                vars(tar)["members"].clear()  # it would keep them all
                after, start = tar.offset, max(tar.offset, info.offset_data)
                yield info, start
                if after < info.offset_data:
                    break  # and go on behind this header
            else:
                return
        except Exception:  # corrupt extended headers raise what they like
            start += BLOCK
