"""A file is complete or absent, whatever error occurs during writing."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from geoclip.system.files import atomic_path, sha256_of, write_text_atomic


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_text_atomic(path, "before")

    def write() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "before" and list(path.parent.iterdir()) == [path]


def test_the_temporary_file_is_hidden_and_ends_in_partial(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.bin") as partial:
        partial.write_bytes(b"1")
        assert list(tmp_path.glob(".*.partial")) == [partial]
    assert (tmp_path / "a.bin").read_bytes() == b"1" and not partial.exists()


def test_the_hash_of_one_file_is_its_own_and_of_several_depends_on_their_order(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert sha256_of(one) == hashlib.sha256(b"1").hexdigest()
    assert len({sha256_of(one), sha256_of(one, two), sha256_of(two, one)}) == 3
