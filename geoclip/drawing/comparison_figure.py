"""Two runs' differences with their intervals: to the right of zero b is better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from geoclip.drawing.charts import COLORS, INK, MUTED, PAPER, heading, plain
from geoclip.drawing.comparison_table import LOWER_IS_BETTER, better, label_of, names_of, signed
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, save_figure

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
