"""The table of what a gallery allows on test sets, for the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geoclip.drawing.table_format import Cell, Table
from geoclip.percent import percent_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def ceiling_table(test_sets: Mapping[str, Mapping[str, Any]], gallery: str) -> RichTable:
    """One row per test set.

    Args:
        test_sets: n, ceiling_percent (by kilometres as text), median_km, verbatim_in_gallery of each by its name.
        gallery: its name and size.
    """
    distances_km = list(next(iter(test_sets.values()))["ceiling_percent"])
    rows = [
        [
            Cell(text=name, bold=True),
            f"{row['n']:,}",
            *(percent_text(row["ceiling_percent"][km]) for km in distances_km),
            f"{row['median_km']:.2f}",
            f"{row['verbatim_in_gallery']:,} ({percent_text(100 * row['verbatim_in_gallery'] / row['n'])} %)",
        ]
        for name, row in test_sets.items()
    ]
    heads = ["test set", "places", *(f"< {km}" for km in distances_km), "median", "verbatim"]
    return Table(heads, rows, f"{gallery}: % of test places with a place of it within … km").rich()
