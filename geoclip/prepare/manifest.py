"""What is to be built, row by row, in an SQLite file: memory does not grow with the rows, and a kill loses a moment.

A row is planned (its coordinates and its key are good), then checked (its picture is good), then picked: it has its
position in the shuffled order. `reason` tells where it is: NULL planned, '' checked, anything else why it is rejected.
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

CHUNK_ROWS = 256  # checked by one process at a time, and lost by a kill
TABLES = """
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, line TEXT, key TEXT, name TEXT, lat, lon, extra TEXT,
    rank INTEGER, tail INTEGER, alone INTEGER DEFAULT 1, place TEXT, suffix TEXT, reason TEXT, origin TEXT
);
CREATE TABLE shards (split TEXT, name TEXT, samples INTEGER, bytes INTEGER, sha256 TEXT, PRIMARY KEY (split, name))
    WITHOUT ROWID;
"""
# A key again in the same origin; in another one a sample of the same coordinates and as many bytes (after the last `:`
# of its place), which is that sample. Two outputs of img2dataset have the same keys for other pictures.
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
    """A row of a source. With a reason it is rejected already; its coordinates are then whatever stood there."""

    line: str  # of a table, counted from 1; or the tar
    key: str  # as the source writes it
    lat: float | str = ""
    lon: float | str = ""
    extra: str = ""  # what else the json is to hold, for its source to read
    place: str = ""  # of the picture, where the source knows it already
    reason: str = ""
    origin: str = ""  # of sources whose parts may use the same keys: what to put before a key that another part has


class Planned(NamedTuple):
    """A row whose picture is to be checked."""

    id: int
    key: str
    alone: int  # whether no other row's name ends in the same last part
    place: str


class Verdict(NamedTuple):
    """Of a picture: where it lies and what it is; or the reason why its row is rejected."""

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
    """The file. Every call opens and closes it, so that no connection is carried into a forked process."""

    path: Path

    @contextmanager
    def _open(self, *, change: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; with `change` one transaction, whole or not at all."""
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

    def begin(self, settings: dict[str, Any]) -> None:
        """An empty manifest in place of any other."""
        for name in (self.path.name, f"{self.path.name}-wal", f"{self.path.name}-shm"):
            self.path.with_name(name).unlink(missing_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(TABLES)
        self.note("settings", json.dumps(settings))

    def note(self, key: str, value: str) -> None:
        """Remember a fact about the build."""
        with self._open(change=True) as database:
            database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """What `note` remembered; None where it did not, or where there is no manifest."""
        if not self.path.is_file():
            return None
        try:
            with self._open() as database:
                row = database.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError:  # killed before it had its tables
            return None
        return None if row is None else str(row[0])

    def add(self, rows: Iterable[Row], seed: int) -> None:
        """Append rows. Their place in the shuffled order is a hash of seed and key, whatever the source's order."""
        with self._open(change=True) as database:
            database.executemany(
                "INSERT INTO rows (line, key, lat, lon, extra, place, origin, reason, name, rank, tail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_stored(row, seed) for row in rows),
            )

    def close_plan(self, seed: int) -> None:
        """After the last row: make keys distinct by origin, reject those that occur again, and note lone last parts."""
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
        """The chunks that hold planned rows, and how many such rows there are."""
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

    def settle(self, verdicts: list[Verdict]) -> None:
        """Note what was found about pictures, all of it or nothing."""
        with self._open(change=True) as database:
            database.executemany("UPDATE rows SET place = ?, suffix = ?, reason = ? WHERE id = ?", verdicts)

    def refuse(self) -> None:
        """End a build of which too much was rejected; the next one checks those pictures again."""
        with self._open(change=True) as database:
            database.execute("UPDATE rows SET reason = NULL WHERE reason != '' AND rank IS NOT NULL")
            database.execute("DELETE FROM shards")
            database.execute("DELETE FROM state WHERE key = 'picked'")
            database.execute("INSERT OR REPLACE INTO state VALUES ('refused', '')")

    def pick(self) -> int:
        """Bring the checked rows into their shuffled order. Returns their number."""
        with self._open(change=True) as database:
            database.execute("DROP TABLE IF EXISTS picked")
            database.execute("CREATE TABLE picked (position INTEGER PRIMARY KEY, id INTEGER)")
            database.execute("INSERT INTO picked (id) SELECT id FROM rows WHERE reason = '' ORDER BY rank, name")
            count = database.execute("SELECT COUNT(*) FROM picked").fetchone()[0]
            database.execute("INSERT OR REPLACE INTO state VALUES ('picked', ?)", (str(count),))
            database.execute("DELETE FROM state WHERE key = 'refused'")
        return int(count)

    def picked(self, start: int, stop: int) -> Generator[Picked]:
        """The rows at these positions of the shuffled order. Close it: the connection is this thread's."""
        select = (
            "SELECT name, key, lat, lon, extra, place, suffix FROM picked CROSS JOIN rows ON rows.id = picked.id "
            "WHERE position > ? AND position <= ? ORDER BY position"
        )
        with self._open() as database:
            for row in database.execute(select, (start, stop)):
                yield Picked(*row)

    def reasons(self) -> list[tuple[str, int, str, str]]:
        """Why rows were rejected: reason, how many, and line and key of the first, most frequent first."""
        select = "SELECT reason, SUM(reason != ?) AS n, line, key, MIN(id) FROM rows WHERE reason != '' GROUP BY reason"
        with self._open() as database:
            found = database.execute(f"{select} ORDER BY n DESC, reason", (EMPTY_SHARD,))
            return [(reason, count, line, key) for reason, count, line, key, _ in found]

    def count(self) -> int:
        """All rows; an empty shard is none."""
        with self._open() as database:
            return int(
                database.execute("SELECT COUNT(*) FROM rows WHERE reason IS NOT ?", (EMPTY_SHARD,)).fetchone()[0]
            )

    def rejected(self) -> Iterator[tuple[str, str, Any, Any, str]]:
        """Line, key, latitude, longitude and reason of every rejected row, in the source's order."""
        with self._open() as database:
            yield from database.execute("SELECT line, key, lat, lon, reason FROM rows WHERE reason != '' ORDER BY id")

    def finish_shard(self, split: str, record: ShardRecord) -> None:
        """Note a shard that is on disk."""
        with self._open(change=True) as database:
            row = {"split": split} | asdict(record)
            database.execute("INSERT OR REPLACE INTO shards VALUES (:split, :name, :samples, :bytes, :sha256)", row)

    def finished_shards(self, split: str) -> dict[str, ShardRecord]:
        """The shards that were on disk when they were noted, by name."""
        select = "SELECT name, samples, bytes, sha256 FROM shards WHERE split = ?"
        with self._open() as database:
            found = database.execute(select, (split,)).fetchall()
        records = (ShardRecord(name=name, samples=n, bytes=size, sha256=sha) for name, n, size, sha in found)
        return {record.name: record for record in records}


def _stored(row: Row, seed: int) -> tuple[Any, ...]:
    if row.reason:
        return *row[:5], row.place, row.origin, row.reason, None, None, None
    path = as_path(row.key)
    name, tail = tar_key(path), _hash(last_part(path))
    return *row[:5], row.place, row.origin, None, name, _hash(f"{seed}/{name}"), tail


def _hash(text: str) -> int:
    """Evenly spread over 64 bits, with a sign, as SQLite's integers are."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
