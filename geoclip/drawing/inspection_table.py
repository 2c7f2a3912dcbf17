"""What an inspection of shards found, for the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoclip.data.inspection.shard_inspection import ShardsSummary
from geoclip.data.inspection.shard_summary import SHOWN, TWICE, SplitSummary
from geoclip.drawing.table_format import Cell, Table

if TYPE_CHECKING:
    from rich.console import Group


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
