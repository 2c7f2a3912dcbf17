"""What a `.wandb` file holds: a log in LevelDB's format, of protocol buffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 1 << 15
FULL, LAST = 1, 4


def wandb_records(path: Path) -> Iterator[Record]:
    """Every whole record."""
    data, at, parts = path.read_bytes(), HEADER, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_history(path: Path) -> dict[int, dict[str, Any]]:
    """The logged values by step, without wandb's own."""
    rows: dict[int, dict[str, Any]] = {}
    for record in wandb_records(path):
        if record.HasField("history"):
            values = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            rows.setdefault(int(values["_step"]), {}).update(
                {key: value for key, value in values.items() if not key.startswith("_")}
            )
    return rows


def wandb_has_exit(path: Path) -> bool:
    """Whether the run's end is recorded."""
    return any(record.HasField("exit") for record in wandb_records(path))
