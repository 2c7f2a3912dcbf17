"""Inspect shards: every sample is read, faults are counted by reason, coordinates summarised."""

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

from geoclip.data.account import Account
from geoclip.data.batch import Skip, SkipReport
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


def sample_table(keys: list[str], gps_deg_N2: NDArray[np.float64], size_N: NDArray[np.int64]) -> pd.DataFrame:
    """A row per sample: key, lat, lon, bytes of the picture, width and height in px (0 until it is decoded)."""
    lat, lon = (gps_deg_N2 + 0.0).T  # -0 and 0 are one number
    columns = {"key": pd.Series(keys, dtype=object), "lat": lat, "lon": lon, "bytes": size_N}
    return pd.DataFrame(columns).assign(width=0, height=0)


def _no_samples() -> pd.DataFrame:
    return sample_table([], np.empty((0, 2)), np.empty(0, dtype=np.int64))


@dataclass(kw_only=True, slots=True)
class ShardFindings:
    """What one tar holds."""

    path: str
    samples: pd.DataFrame = field(default_factory=_no_samples)  # with a picture and a place, in order
    bytes: int = 0
    sha256: str = ""
    formats: Counter[str] = field(default_factory=Counter)
    faults: list[Skip] = field(default_factory=list)  # members and samples that cannot be used
    broken: list[Skip] = field(default_factory=list)  # pictures that cannot be decoded; their size stays 0

    def __len__(self) -> int:
        return len(self.samples)


def examine_shard(path: str, max_pixels: int = MAX_PIXELS) -> ShardFindings:
    """Read a tar anew, whatever index was kept, and decode its pictures. A tar that cannot be read is a fault."""
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
        return ShardFindings(path=path, faults=[fault])
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
    """Format, width and height of a picture that was decoded to its end; of features their format alone.

    Raises:
        ValueError: broken; the message is a short reason.
    """
    if not data.startswith(FEATURES):
        image = open_picture(data, max_pixels)
        decode(data, CHECK_PX, max_pixels=max_pixels)
        return image.format or "?", full_size(image)
    try:
        features = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as many kinds as there are ways to cut a file
        raise ValueError(f"unreadable features ({type(error).__name__})") from None
    if not np.isfinite(features).all():
        raise ValueError("features that are not finite")
    return "features", (0, 0)


SHOWN = 20  # examples of what is wrong
SAMPLE, PLACE = ["key", "lat", "lon"], ["lat", "lon"]
TWICE = "key and coordinates of an earlier sample"


@dataclass(kw_only=True, slots=True)
class SplitSummary:
    """What one folder of tars holds."""

    shards: int
    samples: int
    bytes: int
    mean_picture_bytes: float
    samples_per_shard: tuple[int, int]  # fewest, most
    longer_side_px: tuple[int, int, int]  # smallest, median, largest; 0 where there are no pictures
    shorter_side_px: tuple[int, int, int]
    formats: dict[str, int]
    places_twice: int  # samples at the very coordinates of another one before them; common, no fault
    keys_twice: int  # samples with the key and the coordinates of another one before them, in whichever tar
    keys_shared: int  # samples with the key of another one at other coordinates; both are used
    skipped: dict[str, int]  # files that look like shards and are not read, by reason
    faults: dict[str, int]  # members and samples that cannot be used, by reason
    broken: dict[str, int]  # pictures that cannot be decoded, by reason
    examples: list[str]  # the first of faults, broken and keys_twice
    index_json: list[str] | None  # how index.json differs from the tars; null: there is none

    @property
    def wrong(self) -> int:
        """How many things are not as they should be."""
        return (
            sum(self.faults.values())
            + sum(self.broken.values())
            + self.keys_twice
            + sum(self.skipped.values())
            + len(self.index_json or [])
        )


def summarise_split(files: ShardFiles, findings: list[ShardFindings], samples: pd.DataFrame) -> SplitSummary:
    """The summary of a folder whose tars were examined; `samples` are those of all of them, see `samples_of`."""
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
        longer_side_px=_least_middle_most(decoded.max(axis=1)),
        shorter_side_px=_least_middle_most(decoded.min(axis=1)),
        formats=dict(sum((one.formats for one in findings), Counter()).most_common()),
        places_twice=int(samples.duplicated(PLACE).sum()),
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
    tables = [one.samples.assign(shard=Path(one.path).name) for one in findings]
    return pd.concat(tables or [ShardFindings(path="").samples.assign(shard="")], ignore_index=True)


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """How many keys, samples (a key with its coordinates) and exact coordinates two splits have in common."""
    return {
        name: len(a[columns].drop_duplicates().merge(b[columns].drop_duplicates()))
        for name, columns in (("keys", ["key"]), ("samples", SAMPLE), ("places", PLACE))
    }


def samples_account(what: str, findings: list[ShardFindings]) -> Account:
    """Of the samples of a split: a picture that cannot be decoded is not used."""
    account = Account(what=what, used=sum(len(one) - len(one.broken) for one in findings))
    for one in findings:
        account.skipped.add((*one.faults, *one.broken))
    return account


def _least_middle_most(values: pd.Series[int]) -> tuple[int, int, int]:
    return (int(values.min()), int(values.median()), int(values.max())) if len(values) else (0, 0, 0)


def _differences(path: Path, findings: list[ShardFindings]) -> list[str] | None:
    """How the tars differ from what index.json says of them; None: there is no index.json."""
    if not path.is_file():
        return None
    try:
        said = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"index.json is damaged ({error!r})"]
    differences = [f"{name} is missing" for name in said if name not in {Path(one.path).name for one in findings}]
    for one in findings:
        name = Path(one.path).name
        if name not in said:
            differences.append(f"{name} is not in index.json")
            continue
        is_now = {"samples": len(one), "bytes": one.bytes, "sha256": one.sha256}
        differences += [
            f"{name}: {key} {str(value)[:12]}, index.json says {str(said[name][key])[:12]}"
            for key, value in is_now.items()
            if key in said[name] and said[name][key] != value
        ]
    return differences


log = logging.getLogger("geoclip")

MOST_DOTS = 200_000  # a map of more shows no more


@dataclass(kw_only=True, slots=True)
class ShardsSummary:
    """What `inspect_shards` found."""

    root: str
    splits: dict[str, SplitSummary]
    shared: dict[str, dict[str, int]]  # "a & b": keys, samples and coordinates in both
    accounts: list[Account]  # of each split's shards and samples
    drawn: dict[str, NDArray[np.float64]]  # (N, 2) degrees of each split, at most MOST_DOTS, by the map's title
    written: str = ""  # the JSON

    @property
    def complaint(self) -> str:
        """One sentence on what is broken; empty when nothing is."""
        parts = [f"{split.wrong} faults in {name}" for name, split in self.splits.items() if split.wrong]
        parts += [f"{both['samples']} samples both in {pair}" for pair, both in self.shared.items() if both["samples"]]
        if not parts:
            return ""
        found = ", ".join(parts)
        return f"{self.root} is not sound: {found}; {self.written} says what; rebuild these shards"

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
    """Read every byte of a folder of shards, with or without folders of splits, and write what was found.

    Headers and jsons are read anew, whatever was kept of them, and compared with index.json; each picture is decoded.
    inspection.json goes into the folder, or into the current one where it cannot be written.

    Args:
        root: a folder with *.tar, or with folders that have some.
        workers: processes, each with a tar of its own; None: one per core.
        max_pixels: see `open_picture`.

    Raises:
        DataError: no tar there.
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
        drawn=dict(_dots(name, table[PLACE].to_numpy()) for name, table in samples.items() if len(table)),
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
    """Folders with tars, or with an index.json that names some, by name, the largest first; root itself may be one.

    Raises:
        DataError: not one tar.
    """
    found: dict[Path, ShardFiles] = {}
    for folder in (root, *sorted(path for path in root.glob("*") if path.is_dir() and path.name[0] != ".")):
        files = folder_shards(folder)
        if folder == root:  # the tars of its folders are theirs
            files = replace(files, skipped=[skip for skip in files.skipped if skip.reason != BELOW])
        if files.paths or files.skipped or (folder / "index.json").is_file():
            found[folder] = files
    if not any(files.paths for files in found.values()):
        seen = "".join(f"; {line}" for files in found.values() for line in files.account.skipped.lines())
        raise DataError(f"{root} holds no shards: expected *.tar there, or in folders such as {root / 'train'}{seen}")
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
    """A split's title and places on the map."""
    shown = gps_deg_N2[:: -(-len(gps_deg_N2) // MOST_DOTS)]
    return name if len(shown) == len(gps_deg_N2) else f"{name}: {len(shown):,} of {len(gps_deg_N2):,}", shown


def inspection_table(summary: ShardsSummary) -> Group:
    """For `rich.print`: a row per split, and below it what is wrong or worth knowing."""
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
