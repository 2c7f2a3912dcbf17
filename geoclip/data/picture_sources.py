"""Find and read pictures by name in a folder, a zip or a tar."""

from __future__ import annotations

import os
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from geoclip.data.pictures import PICTURE_SUFFIXES
from geoclip.data.shard_index import tar_members
from geoclip.errors import DataError
from geoclip.system.files import files_below, open_binary

SUFFIX = re.compile(rf"\.(?:{'|'.join(PICTURE_SUFFIXES)})$", re.IGNORECASE)
UNSAFE = re.compile(r"[./\x00-\x1f\x7f]")


def as_path(key: str) -> str:
    """A picture's name in a table as a relative path: `/` between folders, without `.` and a leading `/`."""
    return "/".join(part for part in key.strip().replace("\\", "/").split("/") if part not in ("", "."))


def leaves_its_folder(path: str) -> bool:
    """Whether a relative path contains `..`."""
    return ".." in path.split("/")


def tar_key(path: str) -> str:
    """The key of a sample in a tar, possibly empty: no suffix, `_` for `/` and for dots, where webdataset cuts keys."""
    return UNSAFE.sub("_", SUFFIX.sub("", path))


def last_part(path: str) -> str:
    """A path without its folders."""
    return path.rsplit("/", 1)[-1]


def tails(path: str) -> Iterator[str]:
    """Every name that a table may use for a picture, normalised: with and without leading folders and suffix.

    `mp16/45/77/322.jpg` gives `45_77_322.jpg`, `322`, and more.
    """
    parts = PurePosixPath(path).parts
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield from dict.fromkeys((normalized(tail), normalized(SUFFIX.sub("", tail))))


def normalized(path: str) -> str:
    """A name without capitals, and with `_` for `/`."""
    return path.replace("/", "_").lower()


def utf8(text: str) -> str:
    """A text that UTF-8 can encode: bytes that could not be decoded become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


INDEX_BATCH_ROWS = 10_000
MISSING, AMBIGUOUS = "missing picture", "name fits several pictures"


class Wanted(NamedTuple):
    """A picture named in a table."""

    path: str
    alone: bool  # no other row has the same last part


class Found(NamedTuple):
    """The address of a picture for `Pictures.read`, or why it was not found."""

    place: str = ""  # path below the folder, number in the zip, or offset:size in the tar
    fault: str = ""
    fits: tuple[str, ...] = ()  # the pictures that an ambiguous name fits


def build_picture_index(path: Path, pictures: Iterable[tuple[str, str]]) -> None:
    """Write an index of (name, place) pairs, atomically."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;")
        database.execute("CREATE TABLE pictures (id INTEGER PRIMARY KEY, name TEXT, place TEXT)")
        database.execute("CREATE TABLE tails (tail TEXT, picture INTEGER)")
        numbered = ((number, name, place) for number, (name, place) in enumerate(pictures))
        while batch := list(islice(numbered, INDEX_BATCH_ROWS)):
            database.execute("BEGIN")
            database.executemany("INSERT INTO pictures VALUES (?, ?, ?)", batch)
            database.executemany("INSERT INTO tails VALUES (?, ?)", _tails_of(batch))
            database.execute("COMMIT")
        database.execute("CREATE INDEX by_tail ON tails (tail, picture)")
    partial.replace(path)


def look_up(path: Path, wanted: Iterable[Wanted]) -> list[Found]:
    """Find each picture in the index at `path`.

    An exact name comes first. Otherwise leading folders or the suffix may be missing, and `_` may replace `/`; a
    picture in other folders is accepted only if no other row has the same last part.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return [_look_up(database, *one) for one in wanted]


def _look_up(database: sqlite3.Connection, path: str, alone: bool) -> Found:
    select = "SELECT name, place FROM tails JOIN pictures ON id = picture WHERE tail = ? LIMIT 1000"
    rows = database.execute(select, (normalized(path),)).fetchall()
    if not rows and alone and "/" in path:
        rows = database.execute(select, (normalized(last_part(path)),)).fetchall()
    if len(rows) > 1:
        exact = ([row for row in rows if row[0] == name] for name in (path, f"images/{path}"))
        below = [row for row in rows if row[0].endswith(f"/{path}")]
        rows = next(filter(None, (*exact, below)), rows)
    if not rows:
        return Found(fault=MISSING)
    if len(rows) > 1:
        return Found(fault=AMBIGUOUS, fits=tuple(name for name, _ in rows))
    return Found(place=rows[0][1])


def _tails_of(batch: list[tuple[int, str, str]]) -> Iterator[tuple[str, int]]:
    return ((tail, number) for number, name, _ in batch for tail in tails(name))


MAX_PICTURE_BYTES = 1 << 28  # 256 MiB: larger than any photograph, and too large for memory
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


@dataclass(kw_only=True, slots=True)
class Pictures:
    """Pictures in a folder or an archive."""

    path: Path
    kind: str  # folder, .zip or .tar
    index: Path | None = None

    def prepare(self, work: Path) -> None:
        """Write the index into `work`, before `find`. The index of an archive is reused, that of a folder is not.

        Raises DataError: a corrupt archive, or not of its kind.
        """
        self.index = work / "pictures.sqlite"
        if self.index.is_file() and self.kind != "folder":
            return
        members = {"folder": _folder_members, ".zip": _zip_members, ".tar": _tar_members}[self.kind](self.path)
        try:
            build_picture_index(self.index, tqdm(members, desc=f"listing {self.path.name}", unit="file", delay=1))
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"images={self.path} cannot be read: {error}") from error

    def find(self, wanted: list[Wanted]) -> list[Found]:
        """The address of each picture; after `prepare`."""
        assert self.index is not None
        return look_up(self.index, wanted)

    def read(self, place: str) -> bytes:
        """A picture's bytes.

        Raises:
            OSError: the file cannot be read.
            ValueError: too large, corrupt or encrypted; the message is a short reason.
        """
        if self.kind == ".zip":
            return _read_zip_member(self.path, int(place))
        if self.kind == ".tar":
            offset, size = map(int, place.split(":"))
            return read_part(self.path, offset, size)
        path = self.path / place
        return read_part(path, 0, path.stat().st_size)

    def description(self) -> dict[str, str | int]:
        """Path, and an archive's size, for metadata.json: equal in equal builds."""
        size: dict[str, str | int] = {} if self.kind == "folder" else {"images_bytes": self.path.stat().st_size}
        return {"images": str(self.path)} | size


def open_pictures(images: Path) -> Pictures:
    """Pictures in a folder, a zip or a tar. Raises DataError: anything else."""
    suffix = images.suffix.lower()
    if images.is_dir():
        return Pictures(path=images, kind="folder")
    if suffix in PACKED:
        raise DataError(
            f"images={images} is compressed, so that single pictures cannot be read; unpack it first, e.g. "
            f"tar -xf {images} -C FOLDER, and give images=FOLDER"
        )
    if suffix not in (".zip", ".tar"):
        raise DataError(f"images={images} is not a folder, a .zip or a .tar")
    return Pictures(path=images, kind=suffix)


def read_part(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes from the middle of a file; raises as `Pictures.read`."""
    if size > MAX_PICTURE_BYTES:
        raise ValueError("file too large")
    with open_binary(path) as file:
        return os.pread(file.fileno(), size, offset)


def _folder_members(folder: Path) -> Iterator[tuple[str, str]]:
    for entry in files_below(folder):
        if entry.is_file():
            name = Path(entry.path).relative_to(folder).as_posix()
            yield name, name


def _zip_members(archive: Path) -> Iterator[tuple[str, str]]:
    for number, member in enumerate(_open_zip(archive).infolist()):
        if not member.is_dir() and not member.filename.rpartition("/")[2].startswith("."):
            yield member.filename, str(number)


@lru_cache(maxsize=1)
def _open_zip(archive: Path) -> zipfile.ZipFile:
    """One open file per process; its list of members takes about 0.5 GB per million."""
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
        raise ValueError("encrypted or compressed by an unknown method") from None


def _tar_members(archive: Path) -> Iterator[tuple[str, str]]:
    faults: list[str] = []
    found = False
    with open_binary(archive, buffering=2048) as file:
        for member in tar_members(file, lambda key, reason: faults.append(reason)):
            found = True
            yield member.name, f"{member.offset}:{member.size}"
    if not found:
        raise ValueError(faults[0] if faults else "it contains no file")
