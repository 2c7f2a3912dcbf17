"""Files of the data are opened here: never a pipe, a device or a folder, at which a process would wait for ever."""

from __future__ import annotations

import errno
import os
import stat
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
