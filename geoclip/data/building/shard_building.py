"""Build shards of any size from what people have: planned, checked, shuffled, written. Goes on after a kill.

{root}/{split}/000000.tar … index.json; {root}/val, if samples are held out; rejected.csv; README.md; metadata.json,
written last. While it is being built, .{root}.work/manifest.sqlite beside root knows what has been done.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from geoclip.data.building.build_report import Published, close_build, refuse_if_too_many, write_rejected
from geoclip.data.building.job_pool import in_processes
from geoclip.data.building.manifest import Manifest
from geoclip.data.building.picture_check import Resize, check_chunk
from geoclip.data.building.shard_sources import ShardSource
from geoclip.data.building.shard_tasks import BuildSettings, shard_tasks, write_shard
from geoclip.data.building.shard_writing import ShardRecord, write_index
from geoclip.data.building.standing import clear, cure, differences, settings_at, stands
from geoclip.data.pictures import MAX_PIXELS
from geoclip.errors import DataError
from geoclip.processes import locked

log = logging.getLogger("geoclip")


def build_shards(
    root: Path,
    source: ShardSource,
    settings: BuildSettings,
    *,
    workers: int = 1,
    max_rejected_fraction: float = 0.05,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
    published: Published | None = None,
) -> bool:
    """Build the shards at `root`, or go on with it; nothing is done where they already stand.

    Args:
        root: the folder to make.
        source: rows and pictures.
        settings: what to make of them.
        workers: processes.
        max_rejected_fraction: a larger share of rows that are of no use ends the build before anything is written.
        max_pixels: pictures of more are rejected, see `open_picture`; not among the settings.
        overwrite: replace shards that were built with other settings.
        published: of a benchmark, to compare with.

    Returns:
        Whether anything was built.

    Raises:
        DataError: another data set stands there, the source cannot be used, or too little of it.
    """
    root = root.resolve()  # of a link, the build's files lie beside what it points at
    root.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = asdict(settings) | source.description()
    with locked(root.with_name(f".{root.name}.lock"), f"another build of {root} to end"):
        manifest = Manifest(path=root.with_name(f".{root.name}.work") / "manifest.sqlite")
        if not _begin(root, manifest, wanted, overwrite=overwrite):
            shutil.rmtree(manifest.path.parent, ignore_errors=True)
            return False
        _plan(manifest, source, settings.seed, workers)
        _check(manifest, source, workers, max_pixels)
        replaces = settings_at(root) is not None
        refuse_if_too_many(
            manifest, (manifest.path.parent if replaces else root) / "rejected.csv", max_rejected_fraction
        )
        if replaces:
            clear(root)
        write_rejected(manifest, root / "rejected.csv")
        records = _write(manifest, source, root, settings, workers, max_pixels)
        close_build(root, manifest, wanted, records, published)
        shutil.rmtree(manifest.path.parent)
    return True


def _begin(root: Path, manifest: Manifest, wanted: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether there is something to build; the manifest is then one of these settings, begun before or new.

    Raises:
        DataError: another data set, or another build that was not ended.
    """
    planned = manifest.noted("planned") is not None
    begun: dict[str, Any] = json.loads(manifest.noted("settings") or "{}") if planned else {}
    unfinished = planned and settings_at(root) is None
    if unfinished and begun != wanted:
        if manifest.noted("refused") is not None:
            (root / "rejected.csv").unlink(missing_ok=True)
        elif not overwrite:
            raise DataError(
                f"the build at {root} was begun with other settings ({differences(begun, wanted)}) and not ended; "
                f"{cure(root)}"
            )
        else:
            clear(root)
    elif not unfinished and stands(root, wanted, overwrite=overwrite):
        return False
    if begun == wanted:
        log.info("going on with the build of %s", root)
    else:
        shutil.rmtree(manifest.path.parent, ignore_errors=True)
        manifest.path.parent.mkdir(parents=True)
        manifest.begin(wanted)
    return True


def _plan(manifest: Manifest, source: ShardSource, seed: int, workers: int) -> None:
    """Every row into the manifest, once.

    Raises:
        DataError: the source cannot be used; what was begun is taken away.
    """
    try:
        source.prepare(manifest.path.parent)
        if manifest.noted("planned") is None:
            for rows in source.rows(workers):
                manifest.add(rows, seed)
            manifest.close_plan(seed)
    except DataError:
        shutil.rmtree(manifest.path.parent)
        raise


def _check(manifest: Manifest, source: ShardSource, workers: int, max_pixels: int) -> None:
    """Decode every picture that has not been decoded yet."""
    chunks, left = manifest.unchecked()
    check = partial(check_chunk, manifest=manifest, source=source, max_pixels=max_pixels)
    with tqdm(total=left, desc="checking", unit="picture", mininterval=0.5, disable=not left) as bar:
        for verdicts in in_processes(check, chunks, workers):
            manifest.settle(verdicts)
            bar.update(len(verdicts))


def _write(
    manifest: Manifest, source: ShardSource, root: Path, settings: BuildSettings, workers: int, max_pixels: int
) -> dict[str, list[ShardRecord]]:
    """The shards that are not on disk yet. Returns all of them by split, in order."""
    picked = manifest.noted("picked")
    count = manifest.pick() if picked is None else int(picked)
    tasks = shard_tasks(root, settings, count)
    records: dict[tuple[str, str], ShardRecord] = {}
    for unfinished in root.rglob(".*.partial"):  # of a process that was killed: tars and their kept headers
        unfinished.unlink()
    for folder in {task.path.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        for name, record in manifest.finished_shards(folder.name).items():
            if (folder / name).is_file() and (folder / name).stat().st_size == record.bytes:
                records[folder.name, name] = record
    resize = Resize(max_side_px=settings.max_side_px, jpeg_quality=settings.jpeg_quality, max_pixels=max_pixels)
    left = [task for task in tasks if (task.split, task.path.name) not in records]
    write = partial(write_shard, manifest=manifest, source=source, resize=resize)
    done = count - sum(task.stop - task.start for task in left)
    with tqdm(total=count, initial=done, desc="writing", unit="picture", mininterval=0.5) as bar:
        for task, record in zip(left, in_processes(write, left, workers), strict=True):
            manifest.finish_shard(task.split, record)
            records[task.split, record.name] = record
            bar.update(record.samples)
    by_split: dict[str, list[ShardRecord]] = {}
    for task in tasks:
        by_split.setdefault(task.split, []).append(records[task.split, task.path.name])
    for split, of_split in by_split.items():
        write_index(root / split, split, of_split)
    return by_split
