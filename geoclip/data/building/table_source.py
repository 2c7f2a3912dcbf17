"""Shards from a CSV, and a folder or archive with the pictures that it names. The rows come in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from geoclip.data.building.manifest import Planned, Row
from geoclip.data.building.picture_index import Found, Wanted
from geoclip.data.building.picture_names import as_path, leaves_its_folder, tar_key, utf8
from geoclip.data.building.picture_sources import Pictures
from geoclip.data.places_json import place_fault
from geoclip.data.tables import Columns, degrees_of_cells, open_table
from geoclip.errors import DataError
from geoclip.files import sha256_of

BATCH_ROWS = 5000
TO_JSON = json.JSONEncoder(ensure_ascii=False).encode  # made once: json.dumps makes one a call


@dataclass(kw_only=True, slots=True)
class TableSource:
    """A CSV, and a folder or archive with the pictures that it names."""

    table: Path
    pictures: Pictures
    named: Columns

    def description(self) -> dict[str, str | int]:
        """The table by its content, the pictures by where they lie."""
        table: dict[str, str | int] = {"input": str(self.table), "input_bytes": self.table.stat().st_size}
        columns = {f"columns.{axis}": name for axis, name in asdict(self.named).items() if name}
        return table | {"input_sha256": sha256_of(self.table)} | columns | self.pictures.description()

    def prepare(self, work: Path) -> None:
        """List an archive."""
        self.pictures.prepare(work)

    def rows(self, workers: int) -> Iterator[list[Row]]:
        """One row for each line that is not empty.

        Raises:
            DataError: no such columns, or a quote that is never closed, by its line.
        """
        rows = self._parsed()
        while batch := list(islice(rows, BATCH_ROWS)):
            yield batch

    def _parsed(self) -> Iterator[Row]:
        table = open_table(self.table, "table", self.named)
        header, columns = table.header, table.columns(self.named)
        if not columns.key:
            raise DataError(
                f"{table} has the columns {', '.join(header)}; none of them is known to name pictures: name it with "
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
        """By the names in the table."""
        return self.pictures.find([Wanted(as_path(row.key), bool(row.alone)) for row in planned])

    def read(self, place: str) -> bytes:
        """From the folder or archive."""
        return self.pictures.read(place)

    def fields(self, extra: str) -> dict[str, Any]:
        """The other columns, as they are written there."""
        fields: dict[str, Any] = json.loads(extra) if extra else {}
        fields.pop("key", None)  # the key's column has another name
        return fields


def _row(line: int, key: str, lat: str, lon: str, others: dict[str, str]) -> Row:
    """A row of a table, with the reason if it is of no use."""
    path = as_path(key)
    degrees, reason = (0.0, 0.0), ""
    if not tar_key(path):
        reason = "no key"
    elif leaves_its_folder(path):
        reason = "path traversal in its key"
    else:
        try:
            degrees = degrees_of_cells(lat, lon)
            reason = place_fault(*degrees)
        except ValueError as error:
            reason = str(error)
    if reason:
        return Row(line=str(line), key=key, lat=lat, lon=lon, reason=reason)
    kept = {name: value for name, value in others.items() if value}
    extra = TO_JSON(kept) if kept else ""
    return Row(line=str(line), key=key.strip(), lat=degrees[0], lon=degrees[1], extra=extra)
