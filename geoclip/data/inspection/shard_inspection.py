"""Whether a folder of shards is whole, and what is in it: inspection.json."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from geoclip.data.account import Account
from geoclip.data.building.job_pool import cores, in_processes
from geoclip.data.inspection.shard_examination import ShardFindings, examine_shard
from geoclip.data.inspection.shard_summary import (
    PLACE,
    SplitSummary,
    in_common,
    samples_account,
    samples_of,
    summarise_split,
)
from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shard_list import BELOW, ShardFiles, folder_shards
from geoclip.errors import DataError
from geoclip.run_dir import write_json

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
