"""What a run of wandb's holds, read back from its `.wandb` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil

from geoclip.runs.wandb_process import records


def wandb_history(path: Path) -> dict[int, dict[str, Any]]:
    """The logged values by step, without wandb's own."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records(path):
        if record.HasField("history"):
            values = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
            }
            rows.setdefault(int(values["_step"]), {}).update(
                {key: value for key, value in values.items() if not key.startswith("_")}
            )
    return rows


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie, which waits for a parent that never asks, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wandb_has_exit(path: Path) -> bool:
    """Whether the run's end is recorded."""
    return any(record.HasField("exit") for record in records(path))
