"""Files: atomic writes, hashes, opening of regular files only, safe names."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoclip.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


NOT_IN_NAMES = set('/\\*?[]<>:"|')  # separators, patterns, and characters that other systems refuse
MAX_NAME_BYTES = 150  # suffixes and hashes are appended


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Put `path` into an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` if the block ends without an error.

    A killed process leaves `.NAME.PID.partial` beside `path`, and `path` unchanged.

    Raises:
        OSError: the file cannot be written; `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming_errors(path):
            yield partial
            _flush(partial)
            os.replace(partial, path)
            _flush(path.parent)  # the new name survives a power failure, too
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write a complete file or none."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a complete file or none, in UTF-8; characters that it cannot encode are written with backslashes."""
    write_bytes_atomic(path, text.encode("utf-8", errors="backslashreplace"))


def sha256_of(*paths: Path) -> str:
    """SHA-256 of a file in hex; of several files, of their digests in this order."""
    digests = []
    for path in paths:
        with open_binary(path) as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def sha256_of_array(array: NDArray[Any]) -> str:
    """SHA-256 of an array's bytes in C order, in hex; shape and type do not count."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def open_regular(path: str | Path) -> int:
    """A descriptor of a regular file, for reading; links are followed. The caller closes it.

    Raises:
        OSError: the file cannot be opened, or is a pipe, a socket, a device or a folder: reading it could block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def open_binary(path: str | Path, buffering: int = DEFAULT_BUFFER_SIZE) -> BufferedReader:
    """`open_regular` as a file object."""
    return BufferedReader(FileIO(open_regular(path)), buffering)


def read_regular(path: str | Path) -> bytes:
    """All bytes of a regular file; errors as of `open_regular`."""
    with open_binary(path) as file:
        return file.read()


def files_below(
    folder: Path, unreadable: Callable[[OSError], object] = lambda error: None
) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder, links followed, unordered, without hidden files and folders.

    `unreadable` is called for each folder that cannot be read.
    """
    seen, folders = set[str](), [str(folder)]
    while folders:
        here = folders.pop()
        if (real := os.path.realpath(here)) in seen:  # a link to a folder above it
            continue
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            unreadable(error)
            continue
        folders += [entry.path for entry in shown if entry.is_dir()]
        yield from (entry for entry in shown if not entry.is_dir())


def name_problem(name: str) -> str:
    """Why `name` cannot be the name of a file or folder; empty if it can."""
    if not name:
        return "is empty"
    if bad := sorted(NOT_IN_NAMES.intersection(name)):
        return f"contains {' '.join(bad)}"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name):
        return "contains a control character"
    if name.startswith((".", "-", "~")) or name != name.strip():
        return "begins with '.', '-' or '~', or begins or ends with a space"
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    return ""


def file_name(name: object, source: object) -> str:
    """`name`, read from an untrusted file, if it is a valid file name.

    Raises:
        DataError: it is not; the message names `source`, the file and key that it was read from.
    """
    if problem := name_problem(str(name)):
        raise DataError(f"{source}: the name {str(name)!r} {problem}; it cannot be part of a file's name")
    return str(name)
