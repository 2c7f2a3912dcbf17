"""The members of a tar, also of a damaged one, by its headers alone."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from webdataset.tariterators import base_plus_ext

BLOCK = 512


@dataclass(kw_only=True, slots=True, frozen=True)
class Member:
    """A file inside a tar."""

    key: str  # path without suffixes, as webdataset cuts them
    suffix: str  # lower case
    offset: int  # of its first byte
    size: int


def tar_members(file: BinaryIO, fault: Callable[[str, str], None]) -> Iterator[Member]:
    """Every whole file inside an uncompressed tar, in order.

    Behind a damaged header the next good one is sought. What cannot be used is told to `fault(key, reason)`; files
    whose name is no sample's (README, hidden ones) are passed by in silence, as webdataset does.
    """
    end = os.fstat(file.fileno()).st_size
    expected = 0
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
        elif info.offset_data + info.size > end:
            fault(info.name, "shard ends early")
        elif not name.name.startswith("."):
            key, suffix = base_plus_ext(str(name))
            if key:
                yield Member(key=key, suffix=suffix.lower(), offset=info.offset_data, size=info.size)
    if expected <= end:
        _check_the_end(file, expected, fault)


def _check_the_end(file: BinaryIO, expected: int, fault: Callable[[str, str], None]) -> None:
    """A tar closes with blocks of zeros; without them something is missing."""
    file.seek(expected)
    closing = file.read(BLOCK)
    if len(closing) < BLOCK:
        fault("", "shard ends early" if expected else "no tar")
    elif any(closing):
        fault("", "damaged tar header" if expected else "no tar")
    elif not expected:
        fault("", "no sample in it")


def _headers(file: BinaryIO, end: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Headers as tarfile reads them, each with where the next is due; where it gives up, it starts one block on."""
    start = 0
    while start < end:
        file.seek(start)
        try:
            tar = tarfile.open(fileobj=file, mode="r:", ignore_zeros=True)  # noqa: SIM115 -- the file is the caller's
            while (info := tar.next()) is not None:
                vars(tar)["members"].clear()  # it would keep them all
                start = tar.offset
                yield info, start
            return
        except Exception:  # damaged extended headers raise what they like
            start += BLOCK
