"""What shards are built from: a table with pictures (`table_source`) or shards of somebody else's (`tar_source`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from geoclip.data.building.manifest import Planned, Row
from geoclip.data.building.picture_index import Found

Description = dict[str, str | int]


class ShardSource(Protocol):
    """Rows, and the pictures that belong to them. Picklable; opens its files in the process that asks."""

    def description(self) -> Description:
        """What identifies it, for metadata.json."""

    def prepare(self, work: Path) -> None:
        """Index what has to be indexed, into `work`; once, before any process asks."""

    def rows(self, workers: int) -> Iterator[list[Row]]:
        """All rows, in an order that is always the same; those of no use with the reason."""

    def find(self, planned: list[Planned]) -> list[Found]:
        """Where the rows' pictures lie."""

    def read(self, place: str) -> bytes:
        """A picture's bytes; raises what `PictureSource.read` does."""

    def fields(self, extra: str) -> dict[str, Any]:
        """What a row's json is to hold beside key, lat and lon."""
