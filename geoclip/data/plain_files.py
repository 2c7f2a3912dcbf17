"""Files of the data are opened here: never a pipe, a device or a folder, at which a process would wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path


def open_plain(path: str | Path) -> int:
    """A descriptor of a plain file, or of what a link to one points at, for reading. The caller closes it.

    Raises:
        OSError: the file cannot be opened, or is a pipe, a socket, a device or a folder.
    """
    descriptor = os.open(
        path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )  # non-blocking: a pipe has no writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def open_binary(path: str | Path, buffering: int = DEFAULT_BUFFER_SIZE) -> BufferedReader:
    """`open_plain` as a file object."""
    return BufferedReader(FileIO(open_plain(path)), buffering)


def read_plain(path: str | Path) -> bytes:
    """All bytes of a plain file.

    Raises:
        OSError: as `open_plain`.
    """
    with open_binary(path) as file:
        return file.read()


def files_below(
    folder: Path, unreadable: Callable[[OSError], object] = lambda error: None
) -> Iterator[os.DirEntry[str]]:
    """Everything but folders below a folder, links followed, in no order; hidden files and folders are left out.

    Args:
        folder: where to look.
        unreadable: called for each folder that cannot be read.
    """
    seen, left = set[str](), [str(folder)]
    while left:
        here = left.pop()
        if (real := os.path.realpath(here)) in seen:  # a link to a folder above it
            continue
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            unreadable(error)
            continue
        left += [entry.path for entry in shown if entry.is_dir()]
        yield from (entry for entry in shown if not entry.is_dir())
