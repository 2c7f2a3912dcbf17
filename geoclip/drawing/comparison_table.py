"""The table of two runs' differences, for the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geoclip.drawing.table_format import Cell, Table
from geoclip.drawing.tables import median_text, sign_of, tta_note
from geoclip.percent import percent_text

if TYPE_CHECKING:
    from rich.console import Group

UNITS = {"median_km": "km", "geoscore": ""}
LABELS = {"country": "same country", "median_km": "median", "geoscore": "GeoScore"}
LOWER_IS_BETTER = ("median_km",)


def label_of(name: str, protocol: str) -> str:
    """What a measure is called."""
    return LABELS.get(name) or f"{sign_of(protocol)} {name} km"


def better(name: str, difference: Mapping[str, Any]) -> str:
    """`a` or `b` where one is better beyond chance, else nothing."""
    if not difference["excludes_zero"]:
        return ""
    return "b" if (difference["value"] > 0) != (name in LOWER_IS_BETTER) else "a"


def signed(name: str, value: float) -> str:
    """A difference as it is printed."""
    if name == "median_km":
        return "0" if value == 0 else f"{'+' if value > 0 else '-'}{median_text(abs(value))}"
    return f"{value:+,.0f}" if name == "geoscore" else f"{value:+.2f}"


def comparison_table(comparison: Mapping[str, Any]) -> Group:
    """One row per measure, within 80 columns.

    Args:
        comparison: what eval/compare-*.json holds.
    """
    from rich.console import Group
    from rich.text import Text

    rows = []
    for name, row in comparison["differences"].items():
        rows.append(
            [
                label_of(name, comparison["protocol"]),
                _plain(name, row["a"]),
                _plain(name, row["b"]),
                Cell(text=signed(name, row["value"]), bold=row["excludes_zero"]),
                f"{signed(name, row['low'])} … {signed(name, row['high'])}",
                "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
                better(name, row),
            ]
        )
    table = Table(["", "a", "b", "b - a", "95 %", "p", "better"], rows).rich([13, 9, 9, 9, 16, 8, 7])
    title = Text.assemble((comparison["benchmark"], "bold"), f"  {comparison['n']:,} images, {comparison['protocol']}")
    names = Text("\n".join(names_of(comparison)), style="dim")
    told = (
        f"{comparison['resamples']:,} resamples of the images, with both runs' errors of each. `better`: the interval "
        "excludes zero. Of twenty equal measures one does so by chance; other seeds of training are another matter."
    )
    return Group(Text(), title, names, Text(), table, Text(), Text(told, style="dim"))


def names_of(comparison: Mapping[str, Any]) -> list[str]:
    """Both runs, and the test-time augmentation of each, if any."""
    settings = comparison.get("settings", ({}, {}))
    return [
        f"{side}: {comparison[side]}{tta_note(setting.get('tta', 'single'))}"
        for side, setting in zip("ab", settings, strict=True)
    ]


def _plain(name: str, value: float) -> str:
    if name == "median_km":
        return f"{median_text(value)} km"
    return f"{value:,.0f}" if name == "geoscore" else f"{percent_text(value, 2)} %"
