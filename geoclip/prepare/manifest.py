"""The state of a build, row by row, in SQLite: memory does not grow with the rows, and a kill loses little work.

A row is planned (coordinates and key are good), then checked (its picture is good), then picked (it has a position in
the shuffled order). `reason` is NULL for a planned row, '' for a checked one, else the reason for its rejection.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from geoclip.data.picture_sources import as_path, last_part, tar_key
from geoclip.data.shard_index import EMPTY_SHARD
from geoclip.prepare.shard_writing import ShardRecord

CHUNK_ROWS = 256  # checked by one process at a time; a kill loses that much
TABLES = """
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, line TEXT, key TEXT, name TEXT, lat, lon, extra TEXT,
    rank INTEGER, tail INTEGER, alone INTEGER DEFAULT 1, place TEXT, suffix TEXT, reason TEXT, origin TEXT
);
CREATE TABLE shards (split TEXT, name TEXT, samples INTEGER, bytes INTEGER, sha256 TEXT, PRIMARY KEY (split, name))
    WITHOUT ROWID;
"""
# Equal keys are duplicates within an origin. In two origins (two outputs of img2dataset use the same keys for different
# pictures) they are if coordinates and picture bytes (the number after the last `:` of `place`) are equal, too.
DUPLICATES = """
UPDATE rows SET reason = 'duplicate key', rank = NULL WHERE reason IS NULL AND EXISTS
    (SELECT 1 FROM rows AS other WHERE other.name = rows.name AND other.id < rows.id AND other.reason IS NULL
        AND (other.origin = rows.origin OR (other.lat = rows.lat AND other.lon = rows.lon
            AND substr(other.place, length(rtrim(other.place, '0123456789')) + 1)
                = substr(rows.place, length(rtrim(rows.place, '0123456789')) + 1))))
"""
DISTINCT = """
UPDATE rows SET name = origin || name, rank = hash(? || '/' || origin || name) WHERE reason IS NULL AND EXISTS
    (SELECT 1 FROM rows AS other WHERE other.name = rows.name AND other.id != rows.id AND other.reason IS NULL)
"""
NAMESAKES = """
UPDATE rows SET alone = 0 WHERE reason IS NULL AND EXISTS
    (SELECT 1 FROM rows AS other WHERE other.tail = rows.tail AND other.id != rows.id AND other.reason IS NULL)
"""


class Row(NamedTuple):
    """A row of a source. One with a reason is rejected; its coordinates are then unchecked."""

    line: str  # of a table, counted from 1; or the tar
    key: str  # as the source writes it
    lat: float | str = ""
    lon: float | str = ""
    extra: str = ""  # other fields for the json, in the source's own form
    place: str = ""  # where the picture is, if the source knows it already
    reason: str = ""
    origin: str = ""  # prefix that makes a key distinct if another part of the source uses it, too


class Planned(NamedTuple):
    """A row with a picture to check."""

    id: int
    key: str
    alone: int  # whether no other row's name ends in the same last part
    place: str


class Verdict(NamedTuple):
    """The path and format of a good picture; or the reason to reject its row."""

    place: str
    suffix: str
    reason: str
    id: int


class Picked(NamedTuple):
    """A row of a shard."""

    name: str  # its key in the tar
    key: str
    lat: float
    lon: float
    extra: str
    place: str
    suffix: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Manifest:
    """Every call opens and closes the file, so that forked processes share no connection."""

    path: Path

    @contextmanager
    def _open(self, *, change: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; with `change`, one transaction."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=60)) as database:
            database.executescript("PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536;")
            if not change:
                yield database
                return
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def create(self, settings: dict[str, Any]) -> None:
        """Write an empty manifest into an empty folder."""
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(TABLES)
        self.note("settings", json.dumps(settings))

    def note(self, key: str, value: str) -> None:
        """Store a fact about the build."""
        with self._open(change=True) as database:
            database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """A fact that `note` stored; None if it did not, or if there is no manifest."""
        if not self.path.is_file():
            return None
        try:
            with self._open() as database:
                row = database.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError:  # killed before it had its tables
            return None
        return None if row is None else str(row[0])

    def add(self, rows: Iterable[Row], seed: int) -> None:
        """Append rows. A hash of seed and key decides their position in the shuffled order, not the source's order."""
        with self._open(change=True) as database:
            database.executemany(
                "INSERT INTO rows (line, key, lat, lon, extra, place, origin, reason, name, rank, tail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_stored(row, seed) for row in rows),
            )

    def close_plan(self, seed: int) -> None:
        """After the last row: reject duplicates, make keys distinct, and find the rows that share a file name."""
        with self._open(change=True) as database:
            database.create_function("hash", 1, _hash, deterministic=True)
            database.execute("CREATE INDEX by_name ON rows (name, id) WHERE reason IS NULL")
            database.execute(DUPLICATES)
            if database.execute(DISTINCT, (str(seed),)).rowcount:
                database.execute(DUPLICATES)
            database.execute("DROP INDEX by_name")
            folders = "SELECT 1 FROM rows WHERE reason IS NULL AND instr(key, '/') LIMIT 1"
            if database.execute(folders).fetchone():
                database.execute("CREATE INDEX by_tail ON rows (tail, id) WHERE reason IS NULL")
                database.execute(NAMESAKES)
                database.execute("DROP INDEX by_tail")
            database.execute("INSERT INTO state VALUES ('planned', '')")

    def unchecked(self) -> tuple[list[int], int]:
        """The chunks with planned rows, and the number of such rows."""
        with self._open() as database:
            chunks = f"SELECT DISTINCT (id - 1) / {CHUNK_ROWS} FROM rows WHERE reason IS NULL ORDER BY 1"
            rows = database.execute("SELECT COUNT(*) FROM rows WHERE reason IS NULL").fetchone()
            return [row[0] for row in database.execute(chunks)], rows[0]

    def planned(self, chunk: int) -> list[Planned]:
        """The planned rows of a chunk."""
        select = "SELECT id, key, alone, place FROM rows WHERE id BETWEEN ? AND ? AND reason IS NULL"
        with self._open() as database:
            found = database.execute(select, (chunk * CHUNK_ROWS + 1, (chunk + 1) * CHUNK_ROWS))
            return [Planned(*row) for row in found]

    def record_verdicts(self, verdicts: list[Verdict]) -> None:
        """Store the results of checking pictures."""
        with self._open(change=True) as database:
            database.executemany("UPDATE rows SET place = ?, suffix = ?, reason = ? WHERE id = ?", verdicts)

    def refuse(self) -> None:
        """Mark a build with too many rejected rows; the next start checks their pictures again."""
        with self._open(change=True) as database:
            database.execute("UPDATE rows SET reason = NULL WHERE reason != '' AND rank IS NOT NULL")
            database.execute("DELETE FROM shards")
            database.execute("DELETE FROM state WHERE key = 'picked'")
            database.execute("INSERT OR REPLACE INTO state VALUES ('refused', '')")

    def pick(self) -> int:
        """Put the checked rows into shuffled order. Returns their number."""
        with self._open(change=True) as database:
            database.execute("DROP TABLE IF EXISTS picked")
            database.execute("CREATE TABLE picked (position INTEGER PRIMARY KEY, id INTEGER)")
            database.execute("INSERT INTO picked (id) SELECT id FROM rows WHERE reason = '' ORDER BY rank, name")
            count = database.execute("SELECT COUNT(*) FROM picked").fetchone()[0]
            database.execute("INSERT OR REPLACE INTO state VALUES ('picked', ?)", (str(count),))
            database.execute("DELETE FROM state WHERE key = 'refused'")
        return int(count)

    def picked(self, start: int, stop: int) -> Generator[Picked]:
        """The rows at these positions of the shuffled order. Close it in the same thread."""
        select = (
            "SELECT name, key, lat, lon, extra, place, suffix FROM picked CROSS JOIN rows ON rows.id = picked.id "
            "WHERE position > ? AND position <= ? ORDER BY position"
        )
        with self._open() as database:
            for row in database.execute(select, (start, stop)):
                yield Picked(*row)

    def reasons(self) -> list[tuple[str, int, str, str]]:
        """Reasons of rejection, the most frequent first: reason, number of rows, line and key of the first."""
        select = "SELECT reason, SUM(reason != ?) AS n, line, key, MIN(id) FROM rows WHERE reason != '' GROUP BY reason"
        with self._open() as database:
            found = database.execute(f"{select} ORDER BY n DESC, reason", (EMPTY_SHARD,))
            return [(reason, count, line, key) for reason, count, line, key, _ in found]

    def count(self) -> int:
        """The number of rows; an empty shard is not one."""
        select = "SELECT COUNT(*) FROM rows WHERE reason IS NOT ?"
        with self._open() as database:
            return int(database.execute(select, (EMPTY_SHARD,)).fetchone()[0])

    def rejected(self) -> Iterator[tuple[str, str, Any, Any, str]]:
        """Line, key, latitude, longitude and reason of every rejected row, in the source's order."""
        with self._open() as database:
            yield from database.execute("SELECT line, key, lat, lon, reason FROM rows WHERE reason != '' ORDER BY id")

    def finish_shard(self, split: str, record: ShardRecord) -> None:
        """Record a shard that is on disk."""
        with self._open(change=True) as database:
            row = {"split": split} | asdict(record)
            database.execute("INSERT OR REPLACE INTO shards VALUES (:split, :name, :samples, :bytes, :sha256)", row)

    def finished_shards(self, split: str) -> list[ShardRecord]:
        """The shards that `finish_shard` recorded."""
        select = "SELECT name, samples, bytes, sha256 FROM shards WHERE split = ?"
        with self._open() as database:
            found = database.execute(select, (split,)).fetchall()
        return [ShardRecord(name=name, samples=n, bytes=size, sha256=sha) for name, n, size, sha in found]


def _stored(row: Row, seed: int) -> tuple[Any, ...]:
    if row.reason:
        return *row[:5], row.place, row.origin, row.reason, None, None, None
    path = as_path(row.key)
    name, tail = tar_key(path), _hash(last_part(path))
    return *row[:5], row.place, row.origin, None, name, _hash(f"{seed}/{name}"), tail


def _hash(text: str) -> int:
    """A hash of 64 bits, signed as SQLite's integers."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
