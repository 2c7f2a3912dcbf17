"""The shards of a build, each written by whichever process takes it: the same bytes whoever does, and when."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from geoclip.data.building.manifest import Manifest, Picked
from geoclip.data.building.picture_check import Resize
from geoclip.data.building.shard_sources import ShardSource
from geoclip.data.building.shard_writing import RawSample, ShardRecord, record_shard, shard_name, shard_sizes, write_tar
from geoclip.data.shard_index import open_index
from geoclip.data.workers import note
from geoclip.errors import DataError


@dataclass(kw_only=True, slots=True, frozen=True)
class BuildSettings:
    """What decides the shards' contents, beside the source."""

    split: str = "train"
    val_samples: int = 0  # held out for the split `val`
    samples_per_shard: int = 10_000
    max_side_px: int | None = None
    jpeg_quality: int = 90
    seed: int = 0


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardTask:
    """A shard to be written: the rows at these positions of the shuffled order."""

    split: str
    path: Path
    start: int
    stop: int


def shard_tasks(root: Path, settings: BuildSettings, count: int) -> list[ShardTask]:
    """The shards of `val`, which comes first in the shuffled order, and of the split that was asked for.

    Raises:
        DataError: nothing is left for that split.
    """
    if settings.val_samples >= count:
        raise DataError(
            f"val_samples={settings.val_samples} leaves nothing of the {count} good rows for {settings.split}; lower it"
        )
    tasks, start = [], 0
    for split, samples in (("val", settings.val_samples), (settings.split, count - settings.val_samples)):
        sizes = shard_sizes(samples, settings.samples_per_shard) if samples else []
        for number, size in enumerate(sizes):
            path = root / split / shard_name(number)
            tasks.append(ShardTask(split=split, path=path, start=start, stop=start + size))
            start += size
    return tasks


def write_shard(task: ShardTask, manifest: Manifest, source: ShardSource, resize: Resize) -> ShardRecord:
    """One shard, and what `open_index` would have to read before it is trained on."""
    try:
        with closing(manifest.picked(task.start, task.stop)) as rows:
            samples = write_tar(task.path, (_sample(task.path, row, source, resize) for row in rows))
        open_index(task.path)
        return record_shard(task.path, samples)
    except OSError as error:
        raise DataError(f"{task.path} cannot be written: {error}; the same command goes on there") from error


def _sample(path: Path, row: Picked, source: ShardSource, resize: Resize) -> RawSample:
    """What the tar holds of a row.

    Raises:
        DataError: the picture is no longer what was checked.
    """
    note(str(path), row.key)
    try:
        picture, suffix = resize(source.read(row.place), row.suffix)
        fields = source.fields(row.extra)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the picture of {row.key} was good when it was checked, and is no longer ({error}); bring it back and "
            "give the same command again"
        ) from error
    own = {"key": fields.pop("key", row.key), "lat": row.lat, "lon": row.lon}
    told = own | {name: value for name, value in fields.items() if name not in own}
    return {"__key__": row.name, suffix: picture, "json": json.dumps(told, ensure_ascii=False).encode()}
