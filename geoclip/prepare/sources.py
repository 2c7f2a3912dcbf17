"""Sources of shards: tables that name pictures in folders, tars or zips; and tars of other projects."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from geoclip.data.batch import Skip
from geoclip.data.coordinates import coordinates_fault
from geoclip.data.picture_sources import Found, Pictures, Wanted, as_path, leaves_its_folder, read_part, tar_key, utf8
from geoclip.data.shard_index import Member, open_index, tar_members
from geoclip.data.tables import Columns, degrees_of_cells, open_table
from geoclip.data.workers import in_processes
from geoclip.errors import DataError
from geoclip.prepare.manifest import Planned, Row
from geoclip.system.files import open_binary, sha256_of

BATCH_ROWS = 5000
TO_JSON = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder per call


@dataclass(kw_only=True, slots=True)
class TableSource:
    """A CSV, and the folder or archive of its pictures."""

    table: Path
    pictures: Pictures
    named: Columns

    def description(self) -> dict[str, str | int]:
        """The table by its content, the pictures by their path."""
        table: dict[str, str | int] = {"input": str(self.table), "input_bytes": self.table.stat().st_size}
        columns = {f"columns.{axis}": name for axis, name in asdict(self.named).items() if name}
        return table | {"input_sha256": sha256_of(self.table)} | columns | self.pictures.description()

    def prepare(self, work: Path) -> None:
        """List an archive."""
        self.pictures.prepare(work)

    def rows(self, workers: int) -> Iterator[list[Row]]:
        """Batches of rows, one for each line that is not empty.

        Raises:
            DataError: columns are missing, or a quote is not closed; with the line.
        """
        rows = self._parsed()
        while batch := list(islice(rows, BATCH_ROWS)):
            yield batch

    def _parsed(self) -> Iterator[Row]:
        table = open_table(self.table, "table", self.named)
        header, columns = table.header, table.columns(self.named)
        if not columns.key:
            raise DataError(
                f"{table} has the columns {', '.join(header)}; none of them is a known name for pictures: set "
                "columns.key=NAME"
            )
        where = tuple(header.index(name) for name in (columns.key, columns.lat, columns.lon))
        others = [
            (at, name) for at, name in enumerate(header) if at not in where and not name.startswith("Unnamed: ")
        ]  # pandas writes a nameless index
        for line, cells, fault in table.rows(progress=f"planning {self.table.name}"):
            if fault:
                yield Row(line=str(line), key=utf8(",".join(cells)[:200]), reason=fault)
            else:
                key, lat, lon = (cells[at] for at in where)
                yield _row(line, key, lat, lon, {name: cells[at] for at, name in others})

    def find(self, planned: list[Planned]) -> list[Found]:
        """Where the pictures of these rows are."""
        return self.pictures.find([Wanted(as_path(row.key), bool(row.alone)) for row in planned])

    def read(self, place: str) -> bytes:
        """The bytes of a picture."""
        return self.pictures.read(place)

    def fields(self, extra: str) -> dict[str, Any]:
        """The other columns, unchanged."""
        fields: dict[str, Any] = json.loads(extra) if extra else {}
        fields.pop("key", None)  # the key's column has another name
        return fields


def _row(line: int, key: str, lat: str, lon: str, others: dict[str, str]) -> Row:
    """A row of a table, with a reason if it cannot be used."""
    path = as_path(key)
    degrees, reason = (0.0, 0.0), ""
    if not tar_key(path):
        reason = "no key"
    elif leaves_its_folder(path):
        reason = "path traversal in its key"
    else:
        try:
            degrees = degrees_of_cells(lat, lon)
            reason = coordinates_fault(*degrees)
        except ValueError as error:
            reason = str(error)
    if reason:
        return Row(line=str(line), key=key, lat=lat, lon=lon, reason=reason)
    kept = {name: value for name, value in others.items() if value}
    extra = TO_JSON(kept) if kept else ""
    return Row(line=str(line), key=key.strip(), lat=degrees[0], lon=degrees[1], extra=extra)


@dataclass(kw_only=True, slots=True)
class TarSource:
    """Tar shards of pictures and jsons, such as MP16-Pro's and img2dataset's."""

    paths: list[str]
    key_field: str = ""  # of the json; empty: the names in the tars are the keys
    skipped: list[Skip] = field(default_factory=list)  # files that look like tars and are not read

    def description(self) -> dict[str, str | int]:
        """The tars by names and sizes: hashing hundreds of gigabytes would take hours."""
        sizes = [(os.path.basename(path), os.path.getsize(path)) for path in self.paths]
        digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
        described: dict[str, str | int] = {
            "input": str(Path(self.paths[0]).parent),
            "input_tars": len(sizes),
            "input_bytes": sum(size for _, size in sizes),
            "input_names_and_sizes_sha256": digest,
        }
        if self.key_field:
            described["columns.key"] = self.key_field
        return described

    @property
    def names(self) -> list[str]:
        """Each tar's file name, or the path below their common folder if file names repeat."""
        names = [os.path.basename(path) for path in self.paths]
        if len(set(names)) < len(names):
            common = os.path.commonpath(os.path.dirname(path) for path in self.paths)
            names = [os.path.relpath(path, common) for path in self.paths]
        return names

    def prepare(self, work: Path) -> None:
        """Nothing to prepare."""

    def rows(self, workers: int) -> Iterator[list[Row]]:
        """A batch of rows per tar: one for each sample and each fault.

        Raises:
            DataError: a tar cannot be opened.
        """
        numbered = list(zip(range(len(self.paths)), self.paths, self.names, strict=True))
        found = in_processes(partial(_rows_of_tar, key_field=self.key_field), numbered, workers)
        yield from tqdm(found, total=len(self.paths), desc="planning", unit="tar", mininterval=0.5)
        yield [Row(line=utf8(skip.shard), key="", reason=skip.reason) for skip in self.skipped]

    def find(self, planned: list[Planned]) -> list[Found]:
        """Where the pictures of these rows are."""
        return [Found(place=row.place) for row in planned]

    def read(self, place: str) -> bytes:
        """The bytes of a picture."""
        number, offset, size = map(int, place.split(":"))
        return read_part(self.paths[number], offset, size)

    def fields(self, extra: str) -> dict[str, Any]:
        """The json of the tar; without its `key` if another field is the key."""
        fields: dict[str, Any] = json.loads(self.read(extra))
        if self.key_field:
            fields.pop("key", None)
        return fields


def _rows_of_tar(numbered: tuple[int, str, str], key_field: str) -> list[Row]:
    """A tar's samples and faults."""
    number, path, name = numbered
    jsons: dict[str, Member] = {}
    rows = []
    try:
        index = open_index(path)
        with open_binary(path, buffering=2048) as file:
            for member in tar_members(file, lambda key, reason: None):  # the index has reported the faults
                if member.suffix == "json":
                    jsons.setdefault(member.key, member)
            origin = f"{tar_key(as_path(os.path.splitext(name)[0]))}_"
            parts = zip(index.offset_N.tolist(), index.size_N.tolist(), strict=True)
            for key, (offset, size), (lat, lon) in zip(index.keys, parts, index.gps_deg_N2.tolist(), strict=True):
                fields = jsons[key]
                if key_field:
                    text = os.pread(file.fileno(), fields.size, fields.offset)
                    key = str(json.loads(text).get(key_field, ""))
                extra, place = f"{number}:{fields.offset}:{fields.size}", f"{number}:{offset}:{size}"
                reason = "" if tar_key(as_path(key)) else "no key"
                rows.append(Row(name, utf8(key), lat, lon, extra, place, reason, origin))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return rows + [Row(line=name, key=utf8(skip.key), reason=skip.reason) for skip in index.faults]


ShardSource = TableSource | TarSource
