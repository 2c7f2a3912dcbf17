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


LABELS = {"country": "same country", "median_km": "median", "geoscore": "GeoScore"}
ROW_IN, TOP_IN, LEFT_IN, SINGLE_IN = 0.42, 1.3, 1.55, 0.62
SHADES = {"a": COLORS[1], "b": COLORS[0], "": MUTED}
SINGLE_PANELS = {"geoscore": "GeoScore, of 5,000", "median_km": "median error, km, axis reversed: less is better"}


def _label(metric: str, protocol: str) -> str:
    return LABELS.get(metric) or f"{sign_of(protocol)} {metric} km"


def _better(metric: str, difference: Mapping[str, Any]) -> str:
    """`a` or `b` where the interval of the difference excludes zero, else nothing."""
    if not difference["excludes_zero"]:
        return ""
    return "b" if (difference["value"] > 0) != (metric == "median_km") else "a"


def _value(metric: str, value: float) -> str:
    if metric == "median_km":
        return f"{median_text(value)} km"
    return f"{value:,.0f}" if metric == "geoscore" else f"{percent_text(value, 2)} %"


def _signed(metric: str, value: float) -> str:
    if metric == "median_km":
        return "0" if value == 0 else f"{'+' if value > 0 else '-'}{median_text(abs(value))}"
    return f"{value:+,.0f}" if metric == "geoscore" else f"{value:+.2f}"


def _run_names(comparison: Mapping[str, Any]) -> list[str]:
    """Both runs, each with its test-time augmentation, if any."""
    settings = comparison.get("settings", ({}, {}))
    return [
        f"{side}: {comparison[side]}{tta_note(setting.get('tta', 'single'))}"
        for side, setting in zip("ab", settings, strict=True)
    ]


def comparison_table(comparison: Mapping[str, Any]) -> Group:
    """One row per metric of an eval/compare-*.json, in 80 columns."""
    from rich.console import Group
    from rich.text import Text

    rows = [
        [
            _label(metric, comparison["protocol"]),
            _value(metric, row["a"]),
            _value(metric, row["b"]),
            Cell(text=_signed(metric, row["value"]), bold=row["excludes_zero"]),
            f"{_signed(metric, row['low'])} … {_signed(metric, row['high'])}",
            "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
            _better(metric, row),
        ]
        for metric, row in comparison["differences"].items()
    ]
    table = Table(["", "a", "b", "b - a", "95 %", "p", "better"], rows).rich([13, 9, 9, 9, 16, 8, 7])
    title = Text.assemble((comparison["benchmark"], "bold"), f"  {comparison['n']:,} images, {comparison['protocol']}")
    note = (
        f"Paired bootstrap over images, {comparison['resamples']:,} resamples. `better`: the interval excludes zero. "
        "For equal models, one metric in twenty does so by chance. Variation between training seeds is not included."
    )
    runs = Text("\n".join(_run_names(comparison)), style="dim")
    return Group(Text(), title, runs, Text(), table, Text(), Text(note, style="dim"))


def draw_comparison(comparison: Mapping[str, Any], path: Path) -> None:
    """Differences of an eval/compare-*.json with intervals: shares in one panel, GeoScore and median in one each."""
    rows, protocol = comparison["differences"], comparison["protocol"]
    shares = {metric: row for metric, row in rows.items() if metric not in SINGLE_PANELS}
    height, gap = ROW_IN * len(shares), 1.7
    width = (WIDTH_IN - LEFT_IN - gap - 0.6) / 2
    figure = new_figure(WIDTH_IN, TOP_IN + max(height, 2.6) + 0.75, PAPER)
    title = f"{comparison['benchmark']}: b minus a, {comparison['n']:,} images"
    note = "lines: 95 % intervals; grey: the interval includes zero"
    heading(figure, title, "    ".join(_run_names(comparison)), note)
    _intervals(add_axes(figure, LEFT_IN, TOP_IN, width, height), shares, protocol, "percentage points")
    for number, (metric, label) in enumerate(SINGLE_PANELS.items()):
        top = TOP_IN + number * (SINGLE_IN + 0.95)
        axes = add_axes(figure, LEFT_IN + width + gap, top, width, SINGLE_IN)
        _intervals(axes, {metric: rows[metric]}, protocol, label)
    save_figure(figure, path)


def _intervals(axes: Axes, rows: Mapping[str, Any], protocol: str, label: str) -> None:
    """A row per metric; the axis of the median is reversed, so that right is always better."""
    turn = -1 if "median_km" in rows else 1
    limit = 0.0
    for y, (metric, row) in enumerate(rows.items()):
        color, value = SHADES[_better(metric, row)], turn * row["value"]
        low, high = sorted((turn * row["low"], turn * row["high"]))
        axes.hlines(y, low, high, color=color, linewidth=2.4)
        axes.plot(value, y, "o", color=color, markersize=7)
        axes.annotate(_signed(metric, row["value"]), (value, y), xytext=(0, 7), ha="center",
                      textcoords="offset points", color=INK, fontsize=9.5)  # fmt: skip
        limit = max(limit, abs(low), abs(high))
    axes.axvline(0, color=INK, linewidth=1)
    limit = 1.15 * limit or 1.0
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(rows) - 0.5, -0.62)
    axes.set_yticks(range(len(rows)), labels=[_label(metric, protocol) for metric in rows], color=INK)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{turn * value:+g}" if value else "0")
    axes.set_xlabel(label, color=MUTED, fontsize=10.5)
    plain(axes, grid="x")
    axes.tick_params(axis="y", labelcolor=INK)
