"""Published lists of photographs: URLs and coordinates, joined in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from geoclip.data.coordinates import (
    LATITUDE_LETTERS,
    LATITUDES,
    LONGITUDE_LETTERS,
    LONGITUDES,
    coordinates_fault,
    known_name,
    parse_degrees,
)
from geoclip.data.tables import KEY_NAMES, URL_NAMES, open_table
from geoclip.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif")
FLICKR_HOSTS = (".staticflickr.com/", ".static.flickr.com/")
BATCH_ROWS = 10_000


@dataclass(kw_only=True, slots=True, frozen=True)
class Listed:
    """A row of a published list."""

    name: str
    url: str
    gps_deg: tuple[float, float]
    fault: str  # why it cannot be used; empty if it can


def joined(urls: Path, places: Path | None, scratch: Path, flickr_size: str = "") -> Iterator[Listed]:
    """The rows of `urls`, in order, with their coordinates.

    Args:
        urls: CSV with a column url and one of names (img_id, image_id, name …, any case); without a header: name, url.
        places: CSV with names, LAT and LON; None: `urls` has them. Names may have `_` for `/`, or no suffix.
        scratch: a temporary SQLite file, about 60 bytes per row: memory does not grow with the lists.
        flickr_size: see `sized`.

    Raises:
        DataError: a file lacks a column.
    """
    with closing(sqlite3.connect(scratch, isolation_level=None)) as known:
        known.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-262144;")
        known.execute("CREATE TABLE places (name TEXT PRIMARY KEY, lat REAL, lon REAL) WITHOUT ROWID")
        known.execute("CREATE TABLE seen (name TEXT PRIMARY KEY) WITHOUT ROWID")
        known.execute("BEGIN")  # one transaction, never committed
        if places is not None:
            _store(known, places)
        wanted = (KEY_NAMES, URL_NAMES) if places is not None else (KEY_NAMES, URL_NAMES, LATITUDES, LONGITUDES)
        for broken, (name, url, *own) in _columns(urls, *wanted):
            key = _join_key(name)
            if places is None:
                lat, lon = _degrees(own)
            else:
                find = "SELECT lat, lon FROM places WHERE name = ?"
                lat, lon = known.execute(find, (key,)).fetchone() or (None, None)
            fault = broken or _fault(name, url, lat, lon)
            if not fault and not known.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
                fault = "duplicate key"
            yield Listed(name=name, url=sized(url, flickr_size), gps_deg=(lat or 0.0, lon or 0.0), fault=fault)
    scratch.unlink()


def sized(url: str, flickr_size: str) -> str:
    """Another size of a Flickr photograph: `z` makes …/ID_SECRET_z.jpg, 640 px, of …/ID_SECRET.jpg, 500 px.

    Source: https://www.flickr.com/services/api/misc.urls.html
    """
    stem, dot, suffix = url.rpartition(".")
    has_size = stem.rsplit("/", 1)[-1].count("_") != 1
    if not flickr_size or has_size or not any(host in url for host in FLICKR_HOSTS):
        return url
    return f"{stem}_{flickr_size}{dot}{suffix}"


def _store(known: sqlite3.Connection, places: Path) -> None:
    rows = _columns(places, KEY_NAMES, LATITUDES, LONGITUDES)
    parsed = ((_join_key(name), *_degrees(pair)) for broken, (name, *pair) in rows if not broken)
    while batch := list(islice(parsed, BATCH_ROWS)):
        known.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", batch)


def _columns(path: Path, *wanted: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Fault and wanted columns of each row of a table; a column is given by its possible names, see `known_name`."""
    table = open_table(path, "list")
    if len(table.header) == 2 and "://" in table.header[1]:  # mp16_urls.csv has no header
        table = replace(table, header=["img_id", "url"], skip=table.skip - 1)
    names = [known_name(name) for name in table.header]
    where = [next((names.index(name) for name in spellings if name in names), -1) for spellings in wanted]
    if -1 in where:
        raise DataError(
            f"{path} has the columns {', '.join(table.header)}; it needs one of {', '.join(wanted[where.index(-1)])}"
        )
    for row in table.rows(progress=path.name):
        yield row.fault, [row.cells[column].strip() if column < len(row.cells) else "" for column in where]


def _join_key(name: str) -> str:
    """A name in the form that lists are joined by: some have `_` for `/`, some no suffix."""
    flat = name.replace("/", "_")
    suffix = next((suffix for suffix in SUFFIXES if flat.lower().endswith(suffix)), "")
    return flat.removesuffix(flat[len(flat) - len(suffix) :])


def _degrees(pair: list[str]) -> tuple[float | None, float | None]:
    try:
        return parse_degrees(pair[0], LATITUDE_LETTERS), parse_degrees(pair[1], LONGITUDE_LETTERS)
    except ValueError:
        return None, None


def _fault(name: str, url: str, lat: float | None, lon: float | None) -> str:
    if not name:
        return "no name"
    if "://" not in url:
        return "no URL"
    if lat is None or lon is None:
        return "no coordinates"
    return coordinates_fault(lat, lon)
