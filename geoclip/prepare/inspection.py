"""Inspect shards: read every sample, count faults by reason, summarise coordinates."""

from __future__ import annotations

import io
import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from geoclip.data.batch import Account, Skip, SkipReport, account_of
from geoclip.data.pictures import CHECK_PX, MAX_PIXELS, decode, full_size, open_picture
from geoclip.data.shard_index import ShardIndex, index_shard
from geoclip.data.shards import BELOW, ShardFiles, folder_shards
from geoclip.data.workers import cores, in_processes, note
from geoclip.errors import DataError
from geoclip.plotting.tables import Cell, Table
from geoclip.runs.run_dir import write_json
from geoclip.system.files import open_binary, sha256_of

if TYPE_CHECKING:
    from rich.console import Group


FEATURES = b"\x93NUMPY"

log = logging.getLogger("geoclip")

MAX_DOTS = 200_000  # a map with more shows nothing new

SHOWN = 20  # examples of faults
SAMPLE, LOCATION = ["key", "lat", "lon"], ["lat", "lon"]
TWICE = "key and coordinates of an earlier sample"


def sample_table(keys: list[str], gps_deg_N2: NDArray[np.float64], size_N: NDArray[np.int64]) -> pd.DataFrame:
    """A row per sample: key, lat, lon, bytes of the picture, width and height in px (0 until decoded)."""
    lat, lon = (gps_deg_N2 + 0.0).T  # -0 equals 0
    columns = {"key": pd.Series(keys, dtype=object), "lat": lat, "lon": lon, "bytes": size_N}
    return pd.DataFrame(columns).assign(width=0, height=0)


@dataclass(kw_only=True, slots=True)
class ShardFindings:
    """The contents of one tar."""

    path: str
    samples: pd.DataFrame  # with a picture and coordinates, in order
    bytes: int = 0
    sha256: str = ""
    formats: Counter[str] = field(default_factory=Counter)
    faults: list[Skip] = field(default_factory=list)  # members and samples that cannot be used
    broken: list[Skip] = field(default_factory=list)  # pictures that cannot be decoded; their size is 0

    def __len__(self) -> int:
        return len(self.samples)


def examine_shard(path: str, max_pixels: int = MAX_PIXELS) -> ShardFindings:
    """Read a tar without any stored index, and decode its pictures. A tar that cannot be read is a fault."""
    note(path)
    try:
        index = index_shard(Path(path))
        with open_binary(path) as file:
            findings = ShardFindings(
                path=path,
                samples=sample_table(index.keys, index.gps_deg_N2, index.size_N),
                bytes=os.path.getsize(path),
                sha256=sha256_of(Path(path)),
                faults=index.faults,
            )
            _examine_pictures(index, file.fileno(), findings, max_pixels)
    except OSError as error:
        fault = Skip(shard=os.path.basename(path), key="", reason=f"shard cannot be read ({error.strerror or error})")
        no_samples = sample_table([], np.empty((0, 2)), np.empty(0, dtype=np.int64))
        return ShardFindings(path=path, samples=no_samples, faults=[fault])
    return findings


def _examine_pictures(index: ShardIndex, file: int, findings: ShardFindings, max_pixels: int) -> None:
    size_px_N2 = np.zeros((len(index), 2), dtype=np.int64)
    for row, key in enumerate(index.keys):
        note(index.path, key)
        data = os.pread(file, int(index.size_N[row]), int(index.offset_N[row]))
        try:
            kind, size_px_N2[row] = _examine(data, max_pixels)
            findings.formats[kind] += 1
        except ValueError as error:
            findings.broken.append(Skip(shard=os.path.basename(index.path), key=key, reason=str(error)))
    findings.samples[["width", "height"]] = size_px_N2


def _examine(data: bytes, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Format, width and height of a picture, after decoding all of it; of features, format and zeros.

    Raises:
        ValueError: corrupt; the message is a short reason.
    """
    if not data.startswith(FEATURES):
        image = open_picture(data, max_pixels)
        decode(data, CHECK_PX, max_pixels=max_pixels)
        return image.format or "?", full_size(image)
    try:
        features = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises many kinds for a cut file
        raise ValueError(f"unreadable features ({type(error).__name__})") from None
    if not np.isfinite(features).all():
        raise ValueError("features that are not finite")
    return "features", (0, 0)


@dataclass(kw_only=True, slots=True)
class SplitSummary:
    """The contents of one folder of tars."""

    shards: int
    samples: int
    bytes: int
    mean_picture_bytes: float
    samples_per_shard: tuple[int, int]  # fewest, most
    longer_side_px: tuple[int, int, int]  # smallest, median, largest; 0 where there are no pictures
    shorter_side_px: tuple[int, int, int]
    formats: dict[str, int]
    places_twice: int  # samples at the exact coordinates of an earlier one; common, not a fault
    keys_twice: int  # samples with key and coordinates of an earlier one, in any tar
    keys_shared: int  # samples with the key of an earlier one at other coordinates; both are used
    skipped: dict[str, int]  # files that look like shards but are not read, by reason
    faults: dict[str, int]  # members and samples that cannot be used, by reason
    broken: dict[str, int]  # pictures that cannot be decoded, by reason
    examples: list[str]  # the first of faults, broken and keys_twice
    index_json: list[str] | None  # differences between index.json and the tars; null: no index.json

    @property
    def wrong(self) -> int:
        """The number of faults of all kinds."""
        counted = (self.faults, self.broken, self.skipped)
        return sum(sum(counts.values()) for counts in counted) + self.keys_twice + len(self.index_json or [])


def summarise_split(files: ShardFiles, findings: list[ShardFindings], samples: pd.DataFrame) -> SplitSummary:
    """The summary of a folder of examined tars; `samples` is their `samples_of`."""
    faults, broken = SkipReport(), SkipReport()
    for one in findings:
        faults.add(one.faults)
        broken.add(one.broken)
    twice = samples.duplicated(SAMPLE)
    named = samples[twice].head(SHOWN)
    wrong = [*files.skipped, *(skip for one in findings for skip in (*one.faults, *one.broken))][:SHOWN]
    wrong += [Skip(shard=shard, key=key, reason=TWICE) for shard, key in zip(named["shard"], named["key"], strict=True)]
    decoded = samples.loc[samples["width"] > 0, ["width", "height"]]
    counts = [len(one) for one in findings]
    return SplitSummary(
        shards=len(findings),
        samples=len(samples),
        bytes=sum(one.bytes for one in findings),
        mean_picture_bytes=int(samples["bytes"].sum()) / max(1, len(samples)),
        samples_per_shard=(min(counts, default=0), max(counts, default=0)),
        longer_side_px=_min_median_max(decoded.max(axis=1)),
        shorter_side_px=_min_median_max(decoded.min(axis=1)),
        formats=dict(sum((one.formats for one in findings), Counter()).most_common()),
        places_twice=int(samples.duplicated(LOCATION).sum()),
        keys_twice=int(twice.sum()),
        keys_shared=int(samples.duplicated("key").sum() - twice.sum()),
        skipped=dict(files.account.skipped.counts.most_common()),
        faults=dict(faults.counts.most_common()),
        broken=dict(broken.counts.most_common()),
        examples=[f"{skip.shard}{':' * bool(skip.key)}{skip.key}: {skip.reason}" for skip in wrong],
        index_json=_differences(Path(files.what) / "index.json", findings),
    )


def samples_of(findings: list[ShardFindings]) -> pd.DataFrame:
    """The samples of these tars in order, each with the name of its `shard`."""
    empty = sample_table([], np.empty((0, 2)), np.empty(0, dtype=np.int64)).assign(shard="")
    tables = [one.samples.assign(shard=Path(one.path).name) for one in findings]
    return pd.concat(tables or [empty], ignore_index=True)


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """The number of keys, samples (key and coordinates) and exact coordinates that two splits share."""
    return {
        name: len(a[columns].drop_duplicates().merge(b[columns].drop_duplicates()))
        for name, columns in (("keys", ["key"]), ("samples", SAMPLE), ("places", LOCATION))
    }


def samples_account(what: str, findings: list[ShardFindings]) -> Account:
    """Used and skipped samples of a split; pictures that cannot be decoded are skipped."""
    skipped = [skip for one in findings for skip in (*one.faults, *one.broken)]
    return account_of(what, sum(len(one) - len(one.broken) for one in findings), skipped)


def _min_median_max(values: pd.Series[int]) -> tuple[int, int, int]:
    return (int(values.min()), int(values.median()), int(values.max())) if len(values) else (0, 0, 0)


def _differences(path: Path, findings: list[ShardFindings]) -> list[str] | None:
    """Differences between the tars and index.json; None: there is no index.json."""
    if not path.is_file():
        return None
    try:
        listed = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"index.json is corrupt ({error!r})"]
    differences = [f"{name} is missing" for name in listed if name not in {Path(one.path).name for one in findings}]
    for one in findings:
        name = Path(one.path).name
        if name not in listed:
            differences.append(f"{name} is not in index.json")
            continue
        is_now = {"samples": len(one), "bytes": one.bytes, "sha256": one.sha256}
        differences += [
            f"{name}: {key} {str(value)[:12]}, index.json has {str(listed[name][key])[:12]}"
            for key, value in is_now.items()
            if key in listed[name] and listed[name][key] != value
        ]
    return differences


@dataclass(kw_only=True, slots=True)
class ShardsSummary:
    """The result of `inspect_shards`."""

    root: str
    splits: dict[str, SplitSummary]
    shared: dict[str, dict[str, int]]  # "a & b": keys, samples and coordinates in both
    accounts: list[Account]  # of each split's shards and samples
    drawn: dict[str, NDArray[np.float64]]  # (N, 2) degrees of each split, at most MAX_DOTS, by title
    written: str = ""  # the JSON

    @property
    def complaint(self) -> str:
        """One sentence that lists the faults; empty if there are none."""
        parts = [f"{split.wrong} faults in {name}" for name, split in self.splits.items() if split.wrong]
        parts += [f"{both['samples']} samples both in {pair}" for pair, both in self.shared.items() if both["samples"]]
        if not parts:
            return ""
        found = ", ".join(parts)
        return f"{self.root} has faults: {found}; details: {self.written}; rebuild these shards"

    def as_json(self) -> dict[str, Any]:
        """The contents of inspection.json."""
        return {
            "root": self.root,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "shared": self.shared,
            "written": self.written,
            "sound": not self.complaint,
            "complaint": self.complaint,
        }


def inspect_shards(root: Path, workers: int | None = None, max_pixels: int = MAX_PIXELS) -> ShardsSummary:
    """Read every byte of the shards in a folder, or in its folders, and write inspection.json.

    Headers and jsons are compared with index.json; each picture is decoded. inspection.json goes into the folder, or
    into the current one if that folder is read-only.

    Args:
        root: contains *.tar, or folders that do.
        workers: processes; None: one per core.
        max_pixels: see `open_picture`.

    Raises:
        DataError: there is no tar.
    """
    folders = find_splits(root)
    examine = partial(examine_shard, max_pixels=max_pixels)
    found = _examine_shards(examine, [path for files in folders.values() for path in files.paths], workers)
    splits = {name: [found[path] for path in files.paths] for name, files in folders.items()}
    samples = {name: samples_of(findings) for name, findings in splits.items()}
    summary = ShardsSummary(
        root=str(root),
        splits={name: summarise_split(folders[name], findings, samples[name]) for name, findings in splits.items()},
        accounts=[
            account
            for name, files in folders.items()
            for account in (files.account, samples_account(files.what, splits[name]))
        ],
        shared={f"{a} & {b}": in_common(samples[a], samples[b]) for a, b in combinations(splits, 2)},
        drawn=dict(_dots(name, table[LOCATION].to_numpy()) for name, table in samples.items() if len(table)),
    )
    for folder in (root, Path.cwd()):
        try:
            summary.written = str(folder / "inspection.json")
            write_json(folder / "inspection.json", summary.as_json())
            break
        except OSError as error:
            log.warning("%s cannot be written (%s)", folder, error.strerror)
    return summary


def find_splits(root: Path) -> dict[str, ShardFiles]:
    """Folders (root too) with tars or an index.json, by name, those with most tars first.

    Raises:
        DataError: there is no tar.
    """
    found: dict[Path, ShardFiles] = {}
    for folder in (root, *sorted(path for path in root.glob("*") if path.is_dir() and path.name[0] != ".")):
        files = folder_shards(folder)
        if folder == root:  # tars in its folders belong to those
            files = replace(files, skipped=[skip for skip in files.skipped if skip.reason != BELOW])
        if files.paths or files.skipped or (folder / "index.json").is_file():
            found[folder] = files
    if not any(files.paths for files in found.values()):
        seen = "".join(f"; {line}" for files in found.values() for line in files.account.skipped.lines())
        raise DataError(f"{root} contains no shards: expected *.tar there or in folders like {root / 'train'}{seen}")
    largest_first = sorted(found, key=lambda folder: (-len(found[folder].paths), folder.name))
    return {folder.resolve().name: found[folder] for folder in largest_first}


def _examine_shards(
    examine: Callable[[str], ShardFindings], paths: list[str], workers: int | None
) -> dict[str, ShardFindings]:
    found: dict[str, ShardFindings] = {}
    samples = 0
    with tqdm(total=len(paths), desc="inspecting", unit="shard") as bar:
        for findings in in_processes(examine, paths, cores() if workers is None else workers):
            found[findings.path] = findings
            samples += len(findings)
            bar.set_postfix_str(f"{samples:,} samples")
            bar.update()
    return found


def _dots(name: str, gps_deg_N2: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    """A split's title and coordinates on the map."""
    shown = gps_deg_N2[:: -(-len(gps_deg_N2) // MAX_DOTS)]
    return name if len(shown) == len(gps_deg_N2) else f"{name}: {len(shown):,} of {len(gps_deg_N2):,}", shown


def inspection_table(summary: ShardsSummary) -> Group:
    """A row per split; below the table, faults and notes."""
    from rich.console import Group
    from rich.text import Text

    rows = [
        [
            Cell(text=name, bold=True),
            f"{split.shards:,}",
            f"{split.samples:,}",
            _span(*split.samples_per_shard),
            f"{split.bytes / 1e6:,.1f}",
            f"{split.mean_picture_bytes / 1e3:,.1f}",
            _span(split.shorter_side_px[0], split.longer_side_px[2]),
            Cell(text=f"{split.wrong:,}", bold=split.wrong > 0),
        ]
        for name, split in summary.splits.items()
    ]
    heads = ["split", "shards", "samples", "per shard", "MB", "kB each", "sides, px", "wrong"]
    table = Table(heads, rows, Text(summary.root, "bold")).rich()
    lines = [line for account in summary.accounts for line in account.lines()]
    lines += [line for name, split in summary.splits.items() for line in _notes(name, split)]
    for pair, both in summary.shared.items():
        if both["keys"] or both["places"]:
            lines.append(f"{pair} have {both['keys']:,} keys and {both['places']:,} exact coordinates in common")
    return Group(table, *(Text(line) for line in lines))


def _notes(name: str, split: SplitSummary) -> list[str]:
    lines = []
    if split.keys_twice:
        lines.append(f"{name}: {split.keys_twice:,} × key and coordinates of an earlier sample")
    if split.keys_shared:
        lines.append(f"{name}: {split.keys_shared:,} samples with the key of one at other coordinates; all are used")
    lines += [f"  {example}" for example in split.examples if example.endswith(TWICE)]
    differences = split.index_json or []
    lines += [f"{name}: {difference}" for difference in differences[:SHOWN]]
    if len(differences) > SHOWN:
        lines.append(f"{name}: {len(differences) - SHOWN:,} more differences from index.json")
    if split.index_json is None:
        lines.append(f"{name}: no index.json to compare with")
    if split.places_twice:
        lines.append(f"{name}: {split.places_twice:,} samples at the exact coordinates of an earlier one")
    return lines


def _span(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"
