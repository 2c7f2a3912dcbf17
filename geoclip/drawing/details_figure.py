"""Where a model is right: by continent, by distance to its training places, and as often as it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from geoclip.drawing.charts import COLORS, GRID, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.drawing.details_table import CONTINENT_LABELS, TRAINING_LABELS
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, save_figure
from geoclip.errors import DataError

SHOWN_KM = ("25", "200", "750")
ROW_IN, TOP_IN, LEFT_IN = 0.42, 0.95, 1.75


def draw_details(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy within 25, 200 and 750 km by continent and by distance to the training places, and reliability.

    Args:
        result: what eval/<benchmark>.json holds.
        path: the PNG to write.

    Raises:
        DataError: it has no details.
    """
    if not result.get("by_continent"):
        raise DataError(f"evaluation {result.get('benchmark', '?')!r} holds no details; evaluate again")
    continents = sorted(result["by_continent"].items(), key=lambda item: -item[1]["n"])
    panels = [("truth in", [(CONTINENT_LABELS.get(name, name), row) for name, row in continents])]
    if result.get("by_training_km"):
        rows = [(TRAINING_LABELS[name], row) for name, row in result["by_training_km"].items()]
        panels.append(("nearest training place", rows))
    height = ROW_IN * max(5, *(len(rows) for _, rows in panels))
    side = height + 0.25
    width = (WIDTH_IN - LEFT_IN * len(panels) - side - 1.35) / len(panels)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.75, PAPER)
    title = f"Where it is right: {result['benchmark']}"
    heading(figure, title, right="lines are 95 % intervals over images")
    for number, (title, rows) in enumerate(panels):
        left = LEFT_IN + number * (width + LEFT_IN)
        panel_title(figure, left, TOP_IN - 0.14, title)
        axes = add_axes(figure, left, TOP_IN, width, height)
        _dots(axes, rows)
        if number == 0:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.11), ncols=3, fontsize=10, frameon=False,
                        labelcolor=INK, handletextpad=0.2, columnspacing=1.2)  # of all panels  # fmt: skip
    left = WIDTH_IN - side - 0.3
    panel_title(figure, left, TOP_IN - 0.14, "as often as it says")
    _reliability(add_axes(figure, left, TOP_IN, side, height), result["calibration"])
    save_figure(figure, path)


def _dots(axes: Axes, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
    """A line of dots for every group, at its shares."""
    for km, color, shift in zip(SHOWN_KM, COLORS, (-0.2, 0.0, 0.2), strict=False):
        cells = [row["accuracy_percent"][km] for _, row in rows]
        value_N, low_N, high_N = (np.array([cell[key] for cell in cells]) for key in ("value", "low", "high"))
        y_N = np.arange(len(rows)) + shift
        axes.hlines(y_N, low_N, high_N, color=color, linewidth=2, alpha=0.45)
        axes.plot(value_N, y_N, "o", color=color, markersize=5.5, label=f"within {km} km")
    axes.set_yticks(
        range(len(rows)),
        labels=[f"{label}\n{row['n']:,} image{'s' * (row['n'] > 1)}" for label, row in rows],
        color=INK,
        fontsize=9,
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _percent_axis(axes)


def _reliability(axes: Axes, calibration: Mapping[str, Any]) -> None:
    """What came true over what was said, for every distance that confidence was asked for."""
    axes.plot((0, 100), (0, 100), color="#aab4c0", linewidth=1)
    for km, of_km in calibration.items():
        said, true = ([100 * one[key] for one in of_km["bins"]] for key in ("confidence", "share"))
        axes.plot(said, true, "-o", color=COLORS[SHOWN_KM.index(km)], markersize=4, linewidth=1.6)
    axes.set_ylim(-3, 103)
    axes.set_yticks((0, 25, 50, 75, 100), labels=["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("said: the model's probability", color=MUTED, fontsize=10)
    axes.set_ylabel("came true", color=MUTED, fontsize=10, labelpad=1)
    _percent_axis(axes)
    axes.grid(color=GRID, linewidth=0.8)


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(-3, 103)
    axes.set_xticks((0, 25, 50, 75, 100), labels=["0 %", "25 %", "50 %", "75 %", "100 %"])
    plain(axes, grid="x")
