"""Where every picture of an archive lies, by every name that a table may use for it. On disk: memory stays small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from geoclip.data.building.picture_names import folded, last_part, tails

BATCH_ROWS = 10_000
MISSING, AMBIGUOUS = "missing picture", "name fits several pictures"


class Wanted(NamedTuple):
    """A picture that a table names."""

    path: str
    alone: bool  # whether no other row's name ends in the same last part


class Found(NamedTuple):
    """Where it lies, for its source to read, or why it cannot be told."""

    place: str = ""
    fault: str = ""
    fits: tuple[str, ...] = ()  # of an ambiguous name, the pictures that it fits


def build_picture_index(path: Path, pictures: Iterable[tuple[str, str]]) -> None:
    """Write an index of (name, place) pairs, whole or absent."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;")
        database.execute("CREATE TABLE pictures (id INTEGER PRIMARY KEY, name TEXT, place TEXT)")
        database.execute("CREATE TABLE tails (tail TEXT, picture INTEGER)")
        numbered = ((number, name, place) for number, (name, place) in enumerate(pictures))
        while batch := list(islice(numbered, BATCH_ROWS)):
            database.execute("BEGIN")
            database.executemany("INSERT INTO pictures VALUES (?, ?, ?)", batch)
            database.executemany("INSERT INTO tails VALUES (?, ?)", _tails_of(batch))
            database.execute("COMMIT")
        database.execute("CREATE INDEX by_tail ON tails (tail, picture)")
    partial.replace(path)


def look_up(path: Path, wanted: Iterable[Wanted]) -> list[Found]:
    """Where each of these lies, by the index at `path`.

    A picture's whole name is exact. Otherwise folders may stand before it, `_` for `/`, or a suffix be missing; only a
    name that no other row shares may lie in other folders.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return [_look_up(database, *one) for one in wanted]


def _look_up(database: sqlite3.Connection, path: str, alone: bool) -> Found:
    select = "SELECT name, place FROM tails JOIN pictures ON id = picture WHERE tail = ? LIMIT 1000"
    rows = database.execute(select, (folded(path),)).fetchall()
    if not rows and alone and "/" in path:
        rows = database.execute(select, (folded(last_part(path)),)).fetchall()
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
