"""The pictures of a table: in a folder, a zip or an uncompressed tar, which is listed once.

A picture that a table names is found as a `place`, a string by which its bytes are read. Files are opened by the
process that reads them.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from geoclip.data.building.picture_index import Found, Wanted, build_picture_index, look_up
from geoclip.data.tar_members import tar_members
from geoclip.errors import DataError
from geoclip.files import files_below, open_binary

MAX_PICTURE_BYTES = 1 << 28  # a quarter GiB: no photograph, and too much for a process to hold
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


@dataclass(kw_only=True, slots=True)
class Pictures:
    """Pictures in a folder or an archive."""

    path: Path
    kind: str  # folder, .zip or .tar
    index: Path | None = None

    def prepare(self, work: Path) -> None:
        """List the pictures into `work`; once, before any process asks. A folder may change: it is listed again.

        Raises:
            DataError: a corrupt archive, or not one of its kind.
        """
        self.index = work / "pictures.sqlite"
        if self.index.is_file() and self.kind != "folder":
            return
        members = {"folder": _folder_places, ".zip": _zip_places, ".tar": _tar_places}[self.kind](self.path)
        try:
            build_picture_index(self.index, tqdm(members, desc=f"listing {self.path.name}", unit="file", delay=1))
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"images={self.path} cannot be read: {error}") from error

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """Where each of these pictures is."""
        assert self.index is not None
        return look_up(self.index, wanted)

    def read(self, place: str) -> bytes:
        """A picture's bytes.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no picture's; the message is a short reason.
        """
        if self.kind == ".zip":
            return _read_zip_member(self.path, int(place))
        if self.kind == ".tar":
            offset, size = map(int, place.split(":"))
            return read_part(self.path, offset, size)
        path = self.path / place
        return read_part(path, 0, path.stat().st_size)

    def description(self) -> dict[str, str | int]:
        """Path, and of an archive the size, for metadata.json: what two builds must share to be the same."""
        size: dict[str, str | int] = {} if self.kind == "folder" else {"images_bytes": self.path.stat().st_size}
        return {"images": str(self.path)} | size


def open_pictures(images: Path) -> Pictures:
    """A folder, a zip or a tar as a source.

    Raises:
        DataError: neither.
    """
    suffix = images.suffix.lower()
    if images.is_dir():
        return Pictures(path=images, kind="folder")
    if suffix in PACKED:
        raise DataError(
            f"images={images} is packed as a whole, so that no picture of it can be read alone; unpack it first, e.g. "
            f"tar -xf {images} -C FOLDER, and give images=FOLDER"
        )
    if suffix not in (".zip", ".tar"):
        raise DataError(f"images={images} is neither a folder nor a .zip nor a .tar")
    return Pictures(path=images, kind=suffix)


def read_part(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes out of the middle of a file.

    Raises:
        OSError, ValueError: as `Pictures.read`.
    """
    if size > MAX_PICTURE_BYTES:
        raise ValueError("file too large")
    with open_binary(path) as file:
        return os.pread(file.fileno(), size, offset)


def _folder_places(folder: Path) -> Iterator[tuple[str, str]]:
    for entry in files_below(folder):
        if entry.is_file():
            name = Path(entry.path).relative_to(folder).as_posix()
            yield name, name


def _zip_places(archive: Path) -> Iterator[tuple[str, str]]:
    for number, member in enumerate(_open_zip(archive).infolist()):
        if not member.is_dir() and not member.filename.rpartition("/")[2].startswith("."):
            yield member.filename, str(number)


@lru_cache(maxsize=1)
def _open_zip(archive: Path) -> zipfile.ZipFile:
    """One per process, which stays open; its list of members takes about half a gigabyte for a million of them."""
    return zipfile.ZipFile(open_binary(archive))


def _read_zip_member(archive: Path, number: int) -> bytes:
    opened = _open_zip(archive)
    member = opened.infolist()[number]
    if member.file_size > MAX_PICTURE_BYTES:
        raise ValueError("file too large")
    try:
        with opened.open(member) as file:
            return file.read(member.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise ValueError("corrupt zip member") from None
    except (NotImplementedError, RuntimeError):
        raise ValueError("encrypted or packed in an unknown way") from None


def _tar_places(archive: Path) -> Iterator[tuple[str, str]]:
    faults: list[str] = []
    found = False
    with open_binary(archive, buffering=2048) as file:
        for member in tar_members(file, lambda key, reason: faults.append(reason)):
            found = True
            yield member.name, f"{member.offset}:{member.size}"
    if not found:  # what single faults hide is missed by name
        raise ValueError(faults[0] if faults else "no file in it")
