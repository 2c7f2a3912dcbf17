"""Where the pictures of a table lie: a folder or an archive. Whatever is opened is opened by the process that asks.

A source finds the pictures that a table names, each as a `place`, a string that only this source understands, and
reads what lies at a place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from geoclip.data.building.picture_index import MISSING, Found, Wanted, build_picture_index, look_up
from geoclip.data.building.picture_names import last_part, spellings
from geoclip.data.building.zip_members import read_zip_member, zip_members
from geoclip.data.tar_members import tar_members
from geoclip.errors import DataError
from geoclip.files import open_binary

MAX_PICTURE_BYTES = 1 << 28  # a quarter GiB: no photograph, and too much for a process to hold
PLAIN = -1  # the method of a tar's member: none
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class PictureSource(Protocol):
    """Pictures of a table's rows."""

    def prepare(self, work: Path) -> None:
        """Index what has to be indexed, into `work`; once, before any process asks."""

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """Where each of these pictures lies."""

    def read(self, place: str) -> bytes:
        """A picture's bytes.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no picture's; the message is a short reason.
        """

    def description(self) -> dict[str, str | int]:
        """What it is, for metadata.json; part of what two builds must share to be the same."""


@dataclass(kw_only=True, slots=True)
class FolderPictures:
    """Pictures below a folder or its `images/`; looked for by name, since listing millions of files takes hours."""

    root: Path

    def prepare(self, work: Path) -> None:
        """Nothing."""

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """The first of the `spellings` that is a file."""
        return [self._find(*one) for one in wanted]

    def _find(self, path: str, alone: bool) -> Found:
        for spelling in spellings(path, alone=alone):
            for place in (spelling, f"images/{spelling}"):
                if _is_file(self.root / place):
                    return Found(place=place)
        return Found(fault=MISSING)

    def read(self, place: str) -> bytes:
        """The file's bytes."""
        with open_binary(self.root / place) as file:
            return _read(file.fileno(), os.fstat(file.fileno()).st_size)

    def description(self) -> dict[str, str | int]:
        """Its path alone: reading more would take hours."""
        return {"images": str(self.root)}


@dataclass(kw_only=True, slots=True)
class TreePictures:
    """Pictures anywhere below a folder, which is listed once: for benchmarks, which are small."""

    root: Path
    index: Path | None = None

    def prepare(self, work: Path) -> None:
        """List the folder."""
        from geoclip.data.benchmarks import photos_below

        self.index = work / "pictures.sqlite"
        names = (path.relative_to(self.root).as_posix() for path in photos_below(self.root)[0])
        build_picture_index(self.index, ((name, name) for name in names))

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """By the list."""
        assert self.index is not None
        return look_up(self.index, wanted)

    def read(self, place: str) -> bytes:
        """The file's bytes."""
        return FolderPictures(root=self.root).read(place)

    def description(self) -> dict[str, str | int]:
        """Its path alone."""
        return {"images": str(self.root)}


@dataclass(kw_only=True, slots=True)
class ArchivePictures:
    """Pictures in a zip or an uncompressed tar, read where they lie."""

    archive: Path
    index: Path | None = None

    def prepare(self, work: Path) -> None:
        """Read the archive's directory, or the headers of its members.

        Raises:
            DataError: not such an archive, or a damaged one.
        """
        self.index = work / "pictures.sqlite"
        if self.index.is_file():
            return
        members = _zip_places if self.archive.suffix.lower() == ".zip" else _tar_places
        try:
            build_picture_index(self.index, members(self.archive))
        except (OSError, ValueError) as error:
            raise DataError(f"images={self.archive} cannot be read: {error}") from error

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """By the index."""
        assert self.index is not None
        return look_up(self.index, wanted)

    def read(self, place: str) -> bytes:
        """A member's bytes, unpacked."""
        offset, packed, size, method = map(int, place.split(":"))
        if size > MAX_PICTURE_BYTES:
            raise ValueError("file too large")
        with open_binary(self.archive) as file:
            if method == PLAIN:
                return _read(file.fileno(), size, offset)
            return read_zip_member(file, offset, packed, size, method)

    def description(self) -> dict[str, str | int]:
        """Its path and size."""
        return {"images": str(self.archive), "images_bytes": self.archive.stat().st_size}


def open_pictures(images: Path) -> PictureSource:
    """A folder, a zip or a tar as a source.

    Raises:
        DataError: neither.
    """
    if images.is_dir():
        return FolderPictures(root=images)
    if images.suffix.lower() in PACKED:
        raise DataError(
            f"images={images} is packed as a whole, so that no picture of it can be read alone; unpack it first, e.g. "
            f"tar -xf {images} -C FOLDER, and give images=FOLDER"
        )
    if images.suffix.lower() not in (".zip", ".tar"):
        raise DataError(f"images={images} is neither a folder nor a .zip nor a .tar")
    return ArchivePictures(archive=images)


def read_part(path: str, offset: int, size: int) -> bytes:
    """Bytes out of the middle of a file.

    Raises:
        OSError, ValueError: as `PictureSource.read`.
    """
    with open_binary(path) as file:
        return _read(file.fileno(), size, offset)


def _zip_places(archive: Path) -> Iterator[tuple[str, str]]:
    with open_binary(archive) as file:
        for member in tqdm(zip_members(file), desc=f"listing {archive.name}", unit="file", mininterval=1):
            if not last_part(member.name).startswith("."):
                yield member.name, f"{member.offset}:{member.packed}:{member.size}:{member.method}"


def _tar_places(archive: Path) -> Iterator[tuple[str, str]]:
    faults: list[str] = []

    def fault(_key: str, reason: str) -> None:
        faults[:] = [*faults, reason][:1]  # what it hides is missed by name

    size, found = archive.stat().st_size, False
    bar = tqdm(total=size, desc=f"listing {archive.name}", unit="B", unit_scale=True, mininterval=1)
    with bar, open_binary(archive, buffering=2048) as file:
        for member in tar_members(file, fault):
            found = True
            yield member.name, f"{member.offset}:{member.size}:{member.size}:{PLAIN}"
            bar.update(member.offset + member.size - bar.n)
    if not found:
        raise ValueError(faults[0] if faults else "no file in it")


def _read(file: int, size: int, offset: int = 0) -> bytes:
    if size > MAX_PICTURE_BYTES:
        raise ValueError("file too large")
    return os.pread(file, size, offset)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a null character in its name
        return False
