"""What tables call pictures, what folders and archives call them, and what tars may."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from geoclip.data.picture_kinds import PICTURE_SUFFIXES

SUFFIX = re.compile(rf"\.(?:{'|'.join(PICTURE_SUFFIXES)})$", re.IGNORECASE)
UNSAFE = re.compile(r"[./\x00-\x1f\x7f]")


def as_path(key: str) -> str:
    """A table's name of a picture as a path below a folder: `/` between folders, none of them `.`, none before all."""
    return "/".join(part for part in key.strip().replace("\\", "/").split("/") if part not in ("", "."))


def leaves_its_folder(path: str) -> bool:
    """Whether a path points outside of the folder that it is meant to lie below."""
    return ".." in path.split("/")


def tar_key(path: str) -> str:
    """The key of a sample in a tar: no suffix, `_` for `/`, and for dots, at which webdataset would cut it off.

    Empty where nothing is left.
    """
    return UNSAFE.sub("_", SUFFIX.sub("", path))


def last_part(path: str) -> str:
    """A picture's name without its folders."""
    return path.rsplit("/", 1)[-1]


def tails(path: str) -> Iterator[str]:
    """Every name by which a table may mean the picture at `path` of an archive, folded so that spellings agree.

    With and without folders before it and its suffix: `mp16/45/77/322.jpg` gives `45_77_322.jpg`, `322`, and more.
    """
    parts = PurePosixPath(path).parts
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield from dict.fromkeys((folded(tail), folded(SUFFIX.sub("", tail))))


def folded(path: str) -> str:
    """A spelling that `/` for `_` and capitals do not change."""
    return path.replace("/", "_").lower()


def utf8(text: str) -> str:
    """A text that UTF-8 can write: what stands for bytes that could not be decoded becomes a replacement character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
