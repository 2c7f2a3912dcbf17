"""Build shards of any size: plan, check, shuffle, write. A killed build resumes.

{root}/{split}/000000.tar … index.json; {root}/val, if samples are held out; rejected.csv; README.md; metadata.json,
written last. During the build, .{root}.work/manifest.sqlite beside root records the progress.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Never

from PIL import Image
from tqdm import tqdm

from geoclip.data.picture_sources import MISSING, Found
from geoclip.data.pictures import CHECK_PX, MAX_PIXELS, SUFFIXES, decode, full_size, open_picture, undecodable
from geoclip.data.shard_index import open_index
from geoclip.data.workers import in_processes, note
from geoclip.errors import DataError
from geoclip.prepare.build_report import Published, close_build, refuse_if_too_many, write_rejected
from geoclip.prepare.manifest import Manifest, Picked, Planned, Verdict
from geoclip.prepare.shard_writing import (
    RawSample,
    ShardRecord,
    record_shard,
    shard_name,
    shard_sizes,
    write_index,
    write_tar,
)
from geoclip.prepare.sources import ShardSource
from geoclip.runs.run_dir import differences
from geoclip.system.processes import locked

log = logging.getLogger("geoclip")


@dataclass(kw_only=True, slots=True, frozen=True)
class Resize:
    """Shrinks large pictures; the bytes of others stay the same."""

    max_side_px: int | None = None  # of the longer side
    jpeg_quality: int = 90
    max_pixels: int = MAX_PIXELS

    def __call__(self, data: bytes, suffix: str) -> tuple[bytes, str]:
        """The bytes and suffix to store of a picture.

        Raises:
            ValueError: it cannot be read.
        """
        if self.max_side_px is None or max(full_size(open_picture(data, self.max_pixels))) <= self.max_side_px:
            return data, suffix
        half_px = -(-self.max_side_px // 2)  # `decode` returns both sides of at least twice this
        image = decode(data, half_px, max_pixels=self.max_pixels)
        image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.jpeg_quality)
        return file.getvalue(), "jpg"


def examine(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Decode a complete picture. Returns the suffix of its format in shards.

    Raises:
        ValueError: corrupt, or not a picture; the message is a short reason.
    """
    beginning = data[:512].lstrip().lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script")):
        raise ValueError("HTML, no picture")
    kind = open_picture(data, max_pixels).format or ""
    decode(data, CHECK_PX, max_pixels=max_pixels)
    return SUFFIXES[kind][0]


def check_chunk(chunk: int, manifest: Manifest, source: ShardSource, max_pixels: int) -> list[Verdict]:
    """Find, read and decode the pictures of a chunk of planned rows; one verdict per row."""
    planned = manifest.planned(chunk)
    return [_verdict(row, found, source, max_pixels) for row, found in zip(planned, source.find(planned), strict=True)]


def _verdict(row: Planned, found: Found, source: ShardSource, max_pixels: int) -> Verdict:
    suffix, reason = "", undecodable(row.key) or found.fault
    note(found.place, row.key)
    if not reason:
        try:
            suffix = examine(source.read(found.place), max_pixels)
        except FileNotFoundError:
            reason = MISSING
        except OSError as error:
            reason = f"file cannot be read ({type(error).__name__})"
        except ValueError as error:
            reason = str(error)
    return Verdict(place=found.place, suffix=suffix, reason=reason, id=row.id)


@dataclass(kw_only=True, slots=True, frozen=True)
class BuildSettings:
    """The settings that, with the source, determine the shards' contents."""

    split: str = "train"
    val_samples: int = 0  # held out for the split `val`
    samples_per_shard: int = 10_000
    max_side_px: int | None = None
    jpeg_quality: int = 90
    seed: int = 0


@dataclass(kw_only=True, slots=True, frozen=True)
class ShardTask:
    """A shard to write: the rows at these positions of the shuffled order."""

    split: str
    path: Path
    start: int
    stop: int


def shard_tasks(root: Path, settings: BuildSettings, count: int) -> list[ShardTask]:
    """The shards of `val`, which comes first in the shuffled order, and of `settings.split`.

    Raises:
        DataError: no row remains for that split.
    """
    if settings.val_samples >= count:
        raise DataError(
            f"val_samples={settings.val_samples} leaves none of the {count} good rows for {settings.split}; lower it"
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
    """Write one shard, and its index, which training reads first."""
    try:
        with closing(manifest.picked(task.start, task.stop)) as rows:
            samples = write_tar(task.path, (_sample(task.path, row, source, resize) for row in rows))
        open_index(task.path)
        return record_shard(task.path, samples)
    except OSError as error:
        raise DataError(f"{task.path} cannot be written: {error}; rerunning the command resumes there") from error


def _sample(path: Path, row: Picked, source: ShardSource, resize: Resize) -> RawSample:
    """The members of a row in the tar.

    Raises:
        DataError: the picture has changed since it was checked.
    """
    note(str(path), row.key)
    try:
        picture, suffix = resize(source.read(row.place), row.suffix)
        fields = source.fields(row.extra)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the picture of {row.key} has changed since it was checked ({error}); restore it and rerun the command"
        ) from error
    own = {"key": fields.pop("key", row.key), "lat": row.lat, "lon": row.lon}
    content = own | {name: value for name, value in fields.items() if name not in own}
    return {"__key__": row.name, suffix: picture, "json": json.dumps(content, ensure_ascii=False).encode()}


def is_built(root: Path, wanted: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether `root` contains the complete data set of these settings.

    Raises:
        DataError: `root` contains other files; or, without `overwrite`, a data set built with other settings.
    """
    built = settings_at(root)
    if built is None:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root} exists and was not built by geoclip.shards; choose another root")
        return False
    if built == wanted:
        return True
    if not overwrite:
        refuse_other_settings(root, built, wanted)
    return False


def settings_at(root: Path) -> dict[str, Any] | None:
    """The settings of the complete data set at `root`, or None. metadata.json is written last."""
    try:
        return dict(json.loads((root / "metadata.json").read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse_other_settings(root: Path, built: dict[str, Any], wanted: dict[str, Any]) -> Never:
    """Raise a DataError that names the differences."""
    raise DataError(
        f"{root} has other settings ({'; '.join(differences(built, wanted))}); overwrite=true replaces its data set, "
        "another root keeps it"
    )


def empty_folder(root: Path) -> None:
    """Delete a folder's contents; the folder itself may be a link or a mount, and stays."""
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
    """Build the shards at `root`, or resume building them; False if they are already complete.

    Args:
        root: the folder to write.
        source: rows and pictures.
        settings: determine the contents.
        workers: processes.
        max_rejected_fraction: a larger share of unusable rows ends the build before a shard is written.
        max_pixels: larger pictures are rejected, see `open_picture`; a rerun may change it.
        overwrite: replace shards that were built with other settings.
        published: a benchmark's published size, to compare with.

    Raises:
        DataError: `root` contains another data set, the source cannot be used, or too many rows were rejected.
    """
    root = root.resolve()  # the build's own files are written beside the target of a link
    root.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = asdict(settings) | source.description()
    with locked(root.with_name(f".{root.name}.lock"), f"another build of {root} to end"):
        manifest = Manifest(path=root.with_name(f".{root.name}.work") / "manifest.sqlite")
        if not _open_manifest(root, manifest, wanted, overwrite=overwrite):
            shutil.rmtree(manifest.path.parent, ignore_errors=True)
            return False
        _plan(manifest, source, settings.seed, workers)
        _check(manifest, source, workers, max_pixels)
        replaces = settings_at(root) is not None
        refuse_if_too_many(
            manifest, (manifest.path.parent if replaces else root) / "rejected.csv", max_rejected_fraction
        )
        if replaces:
            empty_folder(root)
        write_rejected(manifest, root / "rejected.csv")
        records = _write(manifest, source, root, settings, workers, max_pixels)
        close_build(root, manifest, wanted, records, published)
        shutil.rmtree(manifest.path.parent)
    return True


def _open_manifest(root: Path, manifest: Manifest, wanted: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether there is something to build; if so, open the manifest of an interrupted build, or create a new one.

    Raises:
        DataError: `root` contains another data set, or an unfinished build with other settings.
    """
    planned = manifest.noted("planned") is not None
    earlier: dict[str, Any] = json.loads(manifest.noted("settings") or "{}") if planned else {}
    unfinished = planned and settings_at(root) is None
    if unfinished and earlier != wanted:
        if manifest.noted("refused") is not None:
            (root / "rejected.csv").unlink(missing_ok=True)
        elif overwrite:
            empty_folder(root)
        else:
            refuse_other_settings(root, earlier, wanted)
    elif not unfinished and is_built(root, wanted, overwrite=overwrite):
        return False
    if earlier == wanted:
        log.info("resuming the build of %s", root)
    else:
        shutil.rmtree(manifest.path.parent, ignore_errors=True)
        manifest.path.parent.mkdir(parents=True)
        manifest.create(wanted)
    return True


def _plan(manifest: Manifest, source: ShardSource, seed: int, workers: int) -> None:
    """Write every row into the manifest, unless an interrupted build has done so.

    Raises:
        DataError: the source cannot be used; the manifest is deleted.
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
    """Decode every picture that was not decoded before."""
    chunks, rows = manifest.unchecked()
    check = partial(check_chunk, manifest=manifest, source=source, max_pixels=max_pixels)
    with tqdm(total=rows, desc="checking", unit="picture", mininterval=0.5, disable=not rows) as bar:
        for verdicts in in_processes(check, chunks, workers):
            manifest.record_verdicts(verdicts)
            bar.update(len(verdicts))


def _write(
    manifest: Manifest, source: ShardSource, root: Path, settings: BuildSettings, workers: int, max_pixels: int
) -> dict[str, list[ShardRecord]]:
    """Write the missing shards. Returns the records of all shards by split, in order."""
    picked = manifest.noted("picked")
    count = manifest.pick() if picked is None else int(picked)
    tasks = shard_tasks(root, settings, count)
    records: dict[Path, ShardRecord] = {}
    for unfinished in root.rglob(".*.partial"):  # tars and indices of killed processes
        unfinished.unlink()
    for folder in {task.path.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        for record in manifest.finished_shards(folder.name):
            path = folder / record.name
            if path.is_file() and path.stat().st_size == record.bytes:
                records[path] = record
    resize = Resize(max_side_px=settings.max_side_px, jpeg_quality=settings.jpeg_quality, max_pixels=max_pixels)
    missing = [task for task in tasks if task.path not in records]
    write = partial(write_shard, manifest=manifest, source=source, resize=resize)
    done = count - sum(task.stop - task.start for task in missing)
    with tqdm(total=count, initial=done, desc="writing", unit="picture", mininterval=0.5) as bar:
        for task, record in zip(missing, in_processes(write, missing, workers), strict=True):
            manifest.finish_shard(task.split, record)
            records[task.path] = record
            bar.update(record.samples)
    by_split: dict[str, list[ShardRecord]] = {}
    for task in tasks:
        by_split.setdefault(task.split, []).append(records[task.path])
    for split, of_split in by_split.items():
        write_index(root / split, split, of_split)
    return by_split
