"""Whether a folder of shards is whole, and what is in it: inspection.json and inspection.png."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from geoclip.data.account import Account
from geoclip.data.blue_marble import read_earth
from geoclip.data.building.blue_marble_shards import Draw
from geoclip.data.building.job_pool import cores, in_processes
from geoclip.data.inspection.shard_examination import ShardFindings, examine_shard
from geoclip.data.inspection.shard_summary import (
    SplitSummary,
    in_common,
    places_of,
    samples_account,
    summarise_split,
)
from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shard_list import BELOW, ShardFiles, folder_shards
from geoclip.errors import AssetError, DataError
from geoclip.run_dir import write_json

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the map's background
MOST_DOTS = 200_000  # a map of more shows no more


@dataclass(kw_only=True, slots=True)
class ShardsSummary:
    """What `inspect_shards` found."""

    root: str
    splits: dict[str, SplitSummary]
    shared: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # "a & b": keys, samples and coordinates in both
    accounts: list[Account] = field(default_factory=list)  # of each split's shards and samples
    written: str = ""  # the JSON

    @property
    def complaint(self) -> str:
        """One sentence on what is broken; empty when nothing is."""
        parts = [f"{split.wrong} faults in {name}" for name, split in self.splits.items() if split.wrong]
        parts += [
            f"{both['samples']} samples both in {pair}"
            for pair, both in self.shared.items()
            if both["samples"]
        ]
        if not parts:
            return ""
        found = ", ".join(parts)
        return f"{self.root} is not sound: {found}; {self.written} says what; rebuild these shards"

    def as_json(self) -> dict[str, Any]:
        """The contents of inspection.json."""
        described = asdict(self)
        del described["accounts"]  # the splits have it
        return described | {"sound": not self.complaint, "complaint": self.complaint}


def inspect_shards(
    root: Path, draw: Draw, workers: int | None = None, max_pixels: int = MAX_PIXELS
) -> ShardsSummary:
    """Read every byte of a folder of shards, with or without folders of splits, and write what was found.

    Headers and jsons are read anew, whatever was kept of them, and compared with index.json; each picture is decoded.
    inspection.json and inspection.png go into the folder, or into the current one where it cannot be written.

    Args:
        root: a folder with *.tar, or with folders that have some.
        draw: draws the places of every split on the Earth into a PNG (the drawing room stands above this one).
        workers: processes, each with a tar of its own; None: one per core.
        max_pixels: see `open_picture`.

    Raises:
        DataError: no tar there.
    """
    folders = find_splits(root)
    examine = partial(examine_shard, max_pixels=max_pixels)
    found = _examine(examine, [path for files in folders.values() for path in files.paths], workers)
    splits = {name: [found[path] for path in files.paths] for name, files in folders.items()}
    summaries = {name: summarise_split(folders[name], findings) for name, findings in splits.items()}
    summary = ShardsSummary(
        root=str(root),
        splits=summaries,
        accounts=[
            account
            for name, files in folders.items()
            for account in (files.account, samples_account(files.what, splits[name]))
        ],
        shared={f"{a} & {b}": in_common(splits[a], splits[b]) for a, b in combinations(splits, 2)},
    )
    _write(root, summary, splits, draw)
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
        raise DataError(
            f"{root} holds no shards: expected *.tar there, or in folders such as {root / 'train'}{seen}"
        )
    largest_first = sorted(found, key=lambda folder: (-len(found[folder].paths), folder.name))
    return {folder.resolve().name: found[folder] for folder in largest_first}


def _examine(
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


def _write(root: Path, summary: ShardsSummary, splits: dict[str, list[ShardFindings]], draw: Draw) -> None:
    """inspection.json and .png, in root or else here."""
    for folder in (root, Path.cwd()):
        try:
            summary.written = str(folder / "inspection.json")
            write_json(folder / "inspection.json", summary.as_json())
            break
        except OSError as error:
            log.warning("%s cannot be written (%s)", folder, error.strerror)
    places = {}
    for name, findings in splits.items():
        gps_deg_N2 = places_of(findings)
        step = -(-len(gps_deg_N2) // MOST_DOTS) or 1
        shown = gps_deg_N2[::step]
        label = name if step == 1 else f"{name}: {len(shown):,} of {len(gps_deg_N2):,}"
        if len(shown):
            places[label] = shown
    if places:
        draw(places, _background(), Path(summary.written).with_suffix(".png"))


@cache
def _background() -> NDArray[np.uint8]:
    """The Blue Marble, or plain night where it is out of reach."""
    try:
        return read_earth(EARTH_PX)
    except AssetError as error:
        log.warning("a map without a background: %s", error)
        return np.zeros((2, 4, 3), dtype=np.uint8)
