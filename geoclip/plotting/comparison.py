"""A comparison of two evaluations as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from geoclip.plotting.curves import COLORS, INK, MUTED, PAPER, heading, plain
from geoclip.plotting.tables import Cell, Table, median_text, sign_of, tta_note
from geoclip.plotting.world import WIDTH_IN, add_axes, new_figure, save_figure
from geoclip.system.console import percent_text

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


ROW_IN, TOP_IN, LEFT_IN, ALONE_IN = 0.42, 1.3, 1.55, 0.62
SHADES = {"a": COLORS[1], "b": COLORS[0], "": MUTED}
AXES = {"geoscore": "GeoScore, of 5,000", "median_km": "median error, km, mirrored: less is better"}


def draw_comparison(comparison: Mapping[str, Any], path: Path) -> None:
    """Shares in one panel; GeoScore and median, which have other units, in two of their own.

    Args:
        comparison: what eval/compare-*.json holds.
        path: the PNG to write.
    """
    rows, protocol = comparison["differences"], comparison["protocol"]
    shares = [name for name in rows if name not in AXES]
    height, gap = ROW_IN * len(shares), 1.7
    width = (WIDTH_IN - LEFT_IN - gap - 0.6) / 2
    figure = new_figure(WIDTH_IN, TOP_IN + max(height, 2.6) + 0.75, PAPER)
    title = f"{comparison['benchmark']}: what b has over a, on {comparison['n']:,} images"
    text = "lines are 95 % intervals; grey: they hold zero"
    heading(figure, title, "    ".join(names_of(comparison)), text)
    axes = add_axes(figure, LEFT_IN, TOP_IN, width, height)
    _forest(axes, {name: rows[name] for name in shares}, protocol)
    axes.set_xlabel("percentage points", color=MUTED, fontsize=10.5)
    for number, (name, label) in enumerate(AXES.items()):
        left, top = LEFT_IN + width + gap, TOP_IN + number * (ALONE_IN + 0.95)
        axes = add_axes(figure, left, top, width, ALONE_IN)
        _forest(axes, {name: rows[name]}, protocol)
        axes.set_xlabel(label, color=MUTED, fontsize=10.5)
    save_figure(figure, path)


def _forest(axes: Axes, rows: Mapping[str, Any], protocol: str) -> None:
    reach = 0.0
    for y, (name, row) in enumerate(rows.items()):
        color, turn = SHADES[better(name, row)], -1 if name in LOWER_IS_BETTER else 1
        low, high = sorted((turn * row["low"], turn * row["high"]))
        axes.hlines(y, low, high, color=color, linewidth=2.4)
        axes.plot(turn * row["value"], y, "o", color=color, markersize=7)
        axes.annotate(signed(name, row["value"]), (turn * row["value"], y), xytext=(0, 7), ha="center",
                      textcoords="offset points", color=INK, fontsize=9.5)  # fmt: skip
        reach = max(reach, abs(low), abs(high))
    axes.axvline(0, color=INK, linewidth=1)
    reach = 1.15 * reach or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rows) - 0.5, -0.62)
    axes.set_yticks(range(len(rows)), labels=[label_of(name, protocol) for name in rows], color=INK)
    if any(name in LOWER_IS_BETTER for name in rows):
        axes.xaxis.set_major_formatter(lambda value, _position: f"{-value:+g}" if value else "0")
    else:
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:+g}" if value else "0")
    plain(axes, grid="x")
    axes.tick_params(axis="y", labelcolor=INK)
