"""The reader of users' tables of coordinates: CSV of any encoding, separator and column names.

Encoding and separator are detected once per file; rows are streamed, each with its line number. Unambiguous values are
read (decimal commas, degrees with minutes and seconds); others are rejected with file, line and column.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import logging
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from geoclip.data.coordinates import (
    FULL_CIRCLE,
    LATITUDE_LETTERS,
    LATITUDES,
    LONGITUDE_LETTERS,
    LONGITUDES,
    known_name,
    parse_degrees,
    require_on_earth,
)
from geoclip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("geoclip")

KEY_NAMES = ("imgfile", "filename", "imgid", "name", "id", "key", "path", "filepath", "file", "image", "imageid",
             "imagename", "photo", "photoid")  # fmt: skip
URL_NAMES = ("url", "photourl", "imageurl", "link")
KNOWN_NAMES = {*KEY_NAMES, *URL_NAMES, *LATITUDES, *LONGITUDES, "x", "y"}
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
BATCH_ROWS = 16_384
HEAD_CHARACTERS = 1 << 16
ENCODINGS = ("cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "gb18030", "big5", "euc_kr")
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
NOT_TABLES = {b"PK\x03\x04": "an Excel workbook or a zip archive", b"PAR1": "a Parquet file"}


@dataclass(kw_only=True, slots=True, frozen=True)
class Columns:
    """Names of columns; empty if not set, or if there is none."""

    key: str = ""
    lat: str = ""
    lon: str = ""


class TableRow(NamedTuple):
    """A line of a table that is not empty; with a fault it may have any number of cells."""

    line: int  # number in the file, from 1
    cells: list[str]
    fault: str = ""


class Chunk(NamedTuple):
    """Rows of a table with valid coordinates."""

    cells: pd.DataFrame  # text of the file
    gps_deg_N2: NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Table:
    """A CSV on disk and its format."""

    path: Path
    what: str  # for messages: gallery, benchmark
    encoding: str
    has_bad_bytes: bool  # some bytes are not valid in this encoding
    separator: str
    header: list[str]
    skip: int  # records before the first row

    def __str__(self) -> str:
        return f"{self.what} {self.path}"

    def columns(self, named: Columns | None = None) -> Columns:
        """`find_columns` of this table; messages contain its format."""
        form = f"{SEPARATORS[self.separator]}-separated, {self.encoding}"
        return find_columns(self.header, f"{self} ({form})", named)

    def rows(self, *, progress: str = "") -> Iterator[TableRow]:
        """Every line that is not empty; `progress` is the title of a progress bar, if any.

        Raises DataError with the line: the file cannot be read, or a quote is never closed.
        """
        size = self.path.stat().st_size
        bar = tqdm(total=size, desc=progress, unit="B", unit_scale=True, mininterval=0.5, disable=not progress)
        with bar, self.path.open("rb") as file, _text_of(file, self.encoding) as text:
            reader = _parser(text, self.separator)
            for _ in range(self.skip):
                next(reader)
            for number, row in enumerate(self._parsed(reader)):
                if number % BATCH_ROWS == 0:
                    bar.update(file.tell() - bar.n)
                yield row
            bar.update(size - bar.n)

    def _parsed(self, reader: Any) -> Iterator[TableRow]:
        count = len(self.header)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "expected after" not in str(error):
                    raise DataError(f"{self}, line {line}: {error}; is a quote not closed there?") from None
                yield TableRow(line, [], "corrupt quotes")
                continue
            except (OSError, EOFError, UnicodeError) as error:
                raise DataError(f"{self}, line {line}, cannot be read: {error}") from error
            if len(cells) > count and not any(map(str.strip, cells[count:])):  # separators at the end of the line
                cells = cells[:count]
            if not cells or (len(cells) < count and not any(map(str.strip, cells))):
                continue
            fault = "" if len(cells) == count else "wrong number of columns"
            if len(cells) > count:
                commas = self.separator == "," and len(cells) == count + 2
                fault = "more values than columns" + " (decimal commas?)" * commas
            if self.has_bad_bytes and not fault and _has_bad_bytes(cells):
                fault = f"bytes that are not {self.encoding}"
            yield TableRow(line, cells, fault)


def open_table(path: Path, what: str, named: Columns | None = None) -> Table:
    """Detect the format of a table; `find_columns` checks its columns.

    Args:
        path: text in any encoding, with any of SEPARATORS, optionally compressed by gzip, bz2 or xz.
        what: the kind of file, for messages.
        named: columns that the user named; they help to detect the separator.

    Raises:
        DataError: no such file, not a text, no header, or two columns of the same name.
    """
    try:
        encoding, has_bad_bytes = _encoding_of(path, what)
        with path.open("rb") as file, _text_of(file, encoding) as text:
            head = text.read(HEAD_CHARACTERS)
    except (OSError, EOFError, UnicodeError, lzma.LZMAError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    known = {known_name(getattr(named, axis.name)) for axis in fields(named)} - {""} if named else set()
    separator, header, skip = _header_of(head, KNOWN_NAMES | known)
    header = [name.strip().lstrip("#").strip() for name in header]  # numpy.savetxt begins with one
    if not header:
        raise DataError(f"{what} {path} has no rows: it is empty")
    name, count = next(((name, count) for name, count in Counter(header).items() if count > 1 and name), ("", 0))
    if count:
        raise DataError(f"{what} {path}, line 1: {count} columns have the name {name!r}; rename all but one")
    header = [name or f"Unnamed: {number}" for number, name in enumerate(header)]  # as in pandas
    return Table(path, what, encoding, has_bad_bytes, separator, header, skip)


def find_columns(header: Sequence[str], what: str, named: Columns | None = None) -> Columns:
    """The columns of coordinates and of pictures' names; `key` is empty if there is none.

    Args:
        header: a table's column names; case, spaces and underscores do not matter. The first of LATITUDES, LONGITUDES
            and KEY_NAMES in the table is used, and y and x if it has none of the first two.
        what: the table, for messages.
        named: columns that the user named; they must exist under exactly these names.

    Raises:
        DataError: no coordinates, two columns for one of them, or a missing named column.
    """
    for axis in fields(named) if named else ():
        name = getattr(named, axis.name)
        if name and name not in header:
            raise DataError(f"{what} has no column {name!r} (columns.{axis.name}); it has {', '.join(header)}")
    by_name: dict[str, list[str]] = {}
    for name in header:
        by_name.setdefault(known_name(name), []).append(name)

    def first(spellings: tuple[str, ...], chosen: str = "") -> str:
        found = [chosen] if chosen else next((by_name[name] for name in spellings if name in by_name), [""])
        exact = [name for name in found if name.lower() in spellings]  # lat before lat_deg
        found = exact if len(exact) == 1 else found
        if len(found) > 1:
            raise DataError(f"{what} has the columns {' and '.join(found)}; rename all but one of them")
        return found[0]

    named = named or Columns()
    lat, lon = first(LATITUDES, named.lat), first(LONGITUDES, named.lon)
    if not lat and not lon:
        lat, lon = first(("y",)), first(("x",))
    if not lat or not lon:
        raise DataError(_without_coordinates(header, what))
    return Columns(key=first(KEY_NAMES, named.key), lat=lat, lon=lon)


def read_chunks(table: Table, columns: Columns, text_columns: Sequence[str]) -> Iterator[Chunk]:
    """The rows of a table in order, with `text_columns` as text.

    Raises DataError: no rows, or an invalid row; with line, column and value.
    """
    import pandas as pd

    where = [table.header.index(name) for name in (columns.lat, columns.lon)]
    at = [table.header.index(name) for name in text_columns]
    found, message, bad = False, "", 0
    rows = table.rows()
    while batch := list(islice(rows, BATCH_ROWS)):
        gps_deg_N2, reasons = _degrees_of(batch, where)
        found, bad = True, bad + len(reasons)
        if reasons and not message:
            number = min(reasons)
            message = _row_error(table, batch[number], columns, where, reasons[number])
        if not bad:
            texts = [[row.cells[position] for position in at] for row in batch]
            frame = pd.DataFrame(texts, columns=list(text_columns), dtype=object)
            yield Chunk(cells=frame, gps_deg_N2=gps_deg_N2)
    if bad:
        raise DataError(f"{message} ({bad} such row{'s' * (bad > 1)})")
    if not found:
        raise DataError(f"{table} has no rows")


def read_coordinates(path: Path, what: str, named: Columns | None = None) -> pd.DataFrame:
    """`lat` and `lon` in degrees and, if the table has them, pictures' names as `key`.

    Raises as `open_table`, `find_columns` and `read_chunks`.
    """
    import pandas as pd

    table = open_table(path, what, named)
    columns = table.columns(named)
    chunks = list(read_chunks(table, columns, [columns.key] if columns.key else []))
    gps_deg_N2 = np.concatenate([chunk.gps_deg_N2 for chunk in chunks])
    frame = pd.concat([chunk.cells for chunk in chunks], ignore_index=True).rename(columns={columns.key: "key"})
    return frame.assign(lat=gps_deg_N2[:, 0], lon=gps_deg_N2[:, 1])


def read_gps_deg(path: Path, what: str) -> NDArray[np.float64]:
    """(N, 2) a table's latitudes and longitudes in degrees; raises as `read_coordinates`."""
    return np.ascontiguousarray(read_coordinates(path, what)[["lat", "lon"]].to_numpy(np.float64))


def _degrees_of(rows: list[TableRow], where: Sequence[int]) -> tuple[NDArray[np.float64], dict[int, str]]:
    """(N, 2) degrees, and the reasons of invalid rows by their number."""
    try:  # fast path: plain numbers
        if any(row.fault for row in rows):
            raise ValueError
        texts = [row.cells[position] for row in rows for position in where]
        if any("_" in text for text in texts):
            raise ValueError
        gps_deg_N2 = np.array([float(text) for text in texts]).reshape(-1, 2)
        if (np.abs(gps_deg_N2) <= (90, 180)).all():
            return gps_deg_N2, {}
    except ValueError:
        pass
    gps_deg_N2, reasons = np.full((len(rows), 2), np.nan), {}
    for number, row in enumerate(rows):
        try:
            if row.fault:
                raise ValueError(row.fault)
            gps_deg_N2[number] = degrees_of_cells(*(row.cells[position] for position in where))
        except ValueError as error:
            reasons[number] = str(error)
    return gps_deg_N2, reasons


def degrees_of_cells(lat: str, lon: str) -> tuple[float, float]:
    """Latitude and longitude in degrees from the texts of two cells. Raises ValueError: the reason, for counts."""
    if not lat.strip() or not lon.strip():
        raise ValueError("no coordinates")
    pair = parse_degrees(lat, LATITUDE_LETTERS), parse_degrees(lon, LONGITUDE_LETTERS)
    require_on_earth(*pair)
    return pair


def _row_error(table: Table, row: TableRow, columns: Columns, where: Sequence[int], reason: str) -> str:
    """File, line, column, value, reason and fix of an invalid row."""
    line, count, found = f"{table}, line {row.line}", len(table.header), len(row.cells)
    if found not in (0, count):
        fix = "give each row one value for each column"
        if "decimal commas" in row.fault:
            fix = "if these are decimal commas, write points, or separate the columns by ';'"
        elif found == count + 1:
            fix = "add the column that the header lacks, or quote the value that contains the separator"
        return (
            f"{line}: {found} values ({', '.join(row.cells)[:80]}) under {count} columns "
            f"({', '.join(table.header)[:80]}) in a {SEPARATORS[table.separator]}-separated table; {fix}"
        )
    if row.fault:
        return f"{line}: {row.fault}; correct the line, or save the table as UTF-8"
    fix = "write degrees, such as 48.8584 or 48°51'30\"N; correct or remove the row"
    if "swapped" in reason:
        fix = f"exchange the names of the columns {columns.lat} and {columns.lon}"
    elif reason == FULL_CIRCLE:
        fix = "subtract 360 from the longitudes above 180"
    elif "range" in reason:
        fix = "latitudes are in [-90, 90], longitudes in [-180, 180] degrees (projected metres are not read)"
    lat, lon = (row.cells[position] for position in where)
    return f"{line}: {columns.lat}={lat!r}, {columns.lon}={lon!r}: {reason}; {fix}"


def _without_coordinates(header: Sequence[str], what: str) -> str:
    names = ", ".join(header)[:200]
    if header and all(re.fullmatch(r"[-+.,\d\s]*\d[-+.,\d\s]*", name) for name in header):
        return f"{what}: its first line ({names}) has numbers, not names; add a header such as LAT,LON"
    joined = next((name for name in header if known_name(name) in ("latlon", "latlng", "coordinates", "gps")), "")
    fix = f"divide {joined!r} into two columns" if joined else "name those of the coordinates LAT and LON"
    return f"{what} has the columns {names}; none is known as latitude or longitude: {fix}"


def _header_of(head: str, known: set[str]) -> tuple[str, list[str], int]:
    """The separator, the header and the number of records up to its end."""
    declared = re.match(r'"?sep=(.)"?\r?\n', head)  # by Excel
    skip = 1 if declared else 0
    found: dict[str, tuple[list[str], int]] = {}
    for separator in SEPARATORS:
        reader = _parser(io.StringIO(head[declared.end() :] if declared else head, newline=""), separator)
        try:
            for number, cells in enumerate(reader):
                is_comment = cells[:1] and cells[0].lstrip().startswith("#")
                is_comment = is_comment and known.isdisjoint(map(known_name, cells))
                if any(map(str.strip, cells)) and not is_comment:
                    found[separator] = cells, skip + number + 1
                    break
        except csv.Error:
            continue
    if not found:
        return ",", [], 0
    if declared and declared[1] in found:
        return declared[1], *found[declared[1]]

    def rank(separator: str) -> tuple[int, bool]:
        cells = found[separator][0]
        return sum(known_name(name) in known for name in cells), len(cells) > 1 and separator != " "

    best = max(found, key=rank)  # the first of several
    return best, *found[best]


def _parser(text: Any, separator: str) -> Any:
    return csv.reader(text, delimiter=separator, skipinitialspace=separator == " ", strict=True)


def _text_of(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(cast("Any", _uncompressed(file)), encoding=encoding, errors="surrogateescape", newline="")


def _uncompressed(file: IO[bytes]) -> IO[bytes]:
    start = file.read(8)
    file.seek(0)
    opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
    return file if opener is None else cast("IO[bytes]", opener(file))


def _encoding_of(path: Path, what: str) -> tuple[str, bool]:
    """The encoding of a text, and whether some of its bytes are invalid in it.

    If it is not UTF-8, charset-normalizer guesses, cp1252 before all others.
    """
    sample, is_utf8, has_utf8_lines = b"", True, False
    with path.open("rb") as raw:
        file = _uncompressed(raw)
        for number, line in enumerate(file):
            if not number:
                if name := next((name for magic, name in NOT_TABLES.items() if line.startswith(magic)), ""):
                    raise DataError(f"{what} {path} is {name}, not a text; save it as CSV (UTF-8)")
                if mark := next((mark for mark in MARKS if line.startswith(mark)), b""):
                    return MARKS[mark], mark == codecs.BOM_UTF8
                if b"\0" in line:
                    if any(line[::2]) != any(line[1::2]):  # UTF-16 without a mark: every second byte is zero
                        return "utf-16-le" if any(line[::2]) else "utf-16-be", False
                    raise DataError(
                        f"{what} {path} is not a text: its first line has a zero byte; save it as CSV (UTF-8)"
                    )
            if line.isascii():
                continue
            try:
                line.decode()
                has_utf8_lines = True
            except UnicodeDecodeError:
                is_utf8 = False
                if len(sample) < HEAD_CHARACTERS:
                    sample += line
    if is_utf8 or has_utf8_lines:
        return "utf-8", not is_utf8
    return _guess_encoding(sample, f"{what} {path}"), True


def _guess_encoding(sample: bytes, name: str) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=["cp1252"]).best() or from_bytes(sample, cp_isolation=list(ENCODINGS)).best()
    encoding = best.encoding if best else "cp1252"
    shown = sample.decode(encoding, "replace").strip().splitlines()[0][:80]
    log.warning("%s is not UTF-8; read as %s: %s", name, encoding, shown)
    return encoding


def _has_bad_bytes(cells: list[str]) -> bool:
    return re.search("[\udc80-\udcff]", "".join(cells)) is not None  # by surrogateescape
