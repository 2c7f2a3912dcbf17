"""The table of what a gallery allows on test sets, for the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geoclip.percent import percent_text

if TYPE_CHECKING:
    from rich.table import Table


def ceiling_table(test_sets: Mapping[str, Mapping[str, Any]], gallery: str) -> Table:
    """One row per test set.

    Args:
        test_sets: n, ceiling_percent (by kilometres as text), median_km, verbatim_in_gallery of each by its name.
        gallery: its name and size.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{gallery}: % of test places with a place of it within … km",
        title_justify="left", title_style="", box=SIMPLE_HEAD, padding=0,
    )  # fmt: skip
    table.add_column("test set", style="bold")
    table.add_column("places", justify="right")
    distances_km = list(next(iter(test_sets.values()))["ceiling_percent"])
    for km in distances_km:
        table.add_column(f"< {km}", justify="right")
    table.add_column("median", justify="right")
    table.add_column("verbatim", justify="right")
    for name, row in test_sets.items():
        table.add_row(
            name,
            f"{row['n']:,}",
            *(percent_text(row["ceiling_percent"][km]) for km in distances_km),
            f"{row['median_km']:.2f}",
            f"{row['verbatim_in_gallery']:,} ({percent_text(100 * row['verbatim_in_gallery'] / row['n'])} %)",
        )
    return table
