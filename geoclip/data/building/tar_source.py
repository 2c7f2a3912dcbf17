"""Shards from tar shards of pictures and jsons, such as MP16-Pro's and img2dataset's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from geoclip.data.batch import Skip
from geoclip.data.building.job_pool import in_processes
from geoclip.data.building.manifest import Planned, Row
from geoclip.data.building.picture_index import Found
from geoclip.data.building.picture_names import as_path, tar_key, utf8
from geoclip.data.building.picture_sources import read_part
from geoclip.data.shard_index import open_index
from geoclip.data.tar_members import Member, tar_members
from geoclip.errors import DataError
from geoclip.files import open_binary


@dataclass(kw_only=True, slots=True)
class TarSource:
    """Tar shards of pictures and jsons, such as MP16-Pro's and img2dataset's."""

    paths: list[str]
    key_field: str = ""  # of the json; empty: keys are what the tars call them
    skipped: list[Skip] = field(default_factory=list)  # what looks like a tar and is not read

    def description(self) -> dict[str, str | int]:
        """Their names and sizes: hashing hundreds of gigabytes would take hours."""
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
        """What to call each tar: its file name, and the folders before it where two are called the same."""
        names = [os.path.basename(path) for path in self.paths]
        if len(set(names)) < len(names):
            common = os.path.commonpath(os.path.dirname(path) for path in self.paths)
            names = [os.path.relpath(path, common) for path in self.paths]
        return names

    def prepare(self, work: Path) -> None:
        """Nothing: each tar's index is read or made with its rows."""

    def rows(self, workers: int) -> Iterator[list[Row]]:
        """One row for each sample, and for whatever in a tar cannot be used.

        Raises:
            DataError: a tar cannot be opened.
        """
        numbered = list(zip(range(len(self.paths)), self.paths, self.names, strict=True))
        found = in_processes(partial(_rows_of_tar, key_field=self.key_field), numbered, workers)
        yield from tqdm(found, total=len(self.paths), desc="planning", unit="tar", mininterval=0.5)
        yield [Row(line=utf8(skip.shard), key="", reason=skip.reason) for skip in self.skipped]

    def find(self, planned: list[Planned]) -> list[Found]:
        """Where the tars' headers say."""
        return [Found(place=row.place) for row in planned]

    def read(self, place: str) -> bytes:
        """Out of the tar."""
        number, offset, size = map(int, place.split(":"))
        return read_part(self.paths[number], offset, size)

    def fields(self, extra: str) -> dict[str, Any]:
        """The json as it is in the tar; its `key` too, unless another field was named as the key."""
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
            for member in tar_members(file, lambda key, reason: None):  # the index has told of them
                if member.suffix == "json":
                    jsons.setdefault(member.key, member)
            origin = f"{tar_key(as_path(os.path.splitext(name)[0]))}_"
            places = zip(index.offset_N.tolist(), index.size_N.tolist(), strict=True)
            for key, (offset, size), (lat, lon) in zip(index.keys, places, index.gps_deg_N2.tolist(), strict=True):
                fields = jsons[key]
                if key_field:
                    text = os.pread(file.fileno(), fields.size, fields.offset)
                    key = str(json.loads(text).get(key_field, ""))
                row = Row(
                    line=name,
                    key=utf8(key),
                    lat=lat,
                    lon=lon,
                    extra=f"{number}:{fields.offset}:{fields.size}",
                    place=f"{number}:{offset}:{size}",
                    reason="" if tar_key(as_path(key)) else "no key",
                    origin=origin,
                )
                rows.append(row)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return rows + [Row(line=name, key=utf8(skip.key), reason=skip.reason) for skip in index.faults]
