"""The probe as bars: a panel for every task, a bar for every kind of features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geoclip.drawing.charts import COLORS, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.drawing.probe_table import FIRST, MEASURES, TITLES, probe_table, shown
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, save_figure

ROW_IN, GAP_IN, LEFT_IN, TOP_IN = 0.34, 0.35, 2.05, 0.95
COORDINATES = ("nothing", "latitude, longitude", "unit sphere", "harmonics, L = 10", "harmonics, L = 40")


def draw_probe(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy, or R², of every task, with its interval.

    Args:
        result: what probe.json holds.
        path: the PNG to write.

    Raises:
        DataError: as `probe_table`.
    """
    names = probe_table(result).features
    tasks = result["tasks"]
    width = (WIDTH_IN - LEFT_IN - 0.3 - GAP_IN * (len(tasks) - 1)) / len(tasks)
    height = ROW_IN * len(names)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.6, PAPER)
    sizes = f"seed {result['seed']}, {result['places']:,} places; lines are 95 % intervals over test cells"
    heading(figure, "What a linear head reads from them in cells it has not seen", right=sizes)
    for number, (task, row) in enumerate(tasks.items()):
        left = LEFT_IN + number * (width + GAP_IN)
        measure = next(key for key in FIRST if key in row["features"][names[0]]["scores"])
        panel_title(figure, left, TOP_IN - 0.14, TITLES[task])
        axes = add_axes(figure, left, TOP_IN, width, height)
        _bars(axes, [row["features"][name]["scores"][measure] for name in names], names, measure)
        axes.set_xlabel(MEASURES[measure], color=MUTED, fontsize=10.5)
        axes.set_yticks(range(len(names)), labels=names if number == 0 else [""] * len(names), color=INK)
    save_figure(figure, path)


def _bars(axes: Any, scores: list[Mapping[str, float]], names: list[str], measure: str) -> None:
    scale = 100 if measure == "accuracy" else 1
    value_N, low_N, high_N = (scale * np.array([score[key] for score in scores]) for key in ("value", "low", "high"))
    shown_N = np.clip(value_N, 0, None)  # an R² below 0 has no bar
    colors = [MUTED if name in COORDINATES else COLORS[0] for name in names]
    axes.barh(range(len(names)), shown_N, color=colors, height=0.66, alpha=0.9)
    reach = np.stack((shown_N - np.clip(low_N, 0, None), np.clip(high_N, 0, None) - shown_N)).clip(0)
    axes.errorbar(shown_N, range(len(names)), xerr=reach, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2)
    for row, (score, end) in enumerate(zip(scores, np.maximum(high_N, shown_N), strict=True)):
        text = shown(score["value"], measure)
        axes.text(end + 0.015 * scale, row, text, va="center", ha="left", color=INK, fontsize=9.5)
    axes.set_xlim(0, 1.18 * scale)
    axes.set_xticks([0, 0.25 * scale, 0.5 * scale, 0.75 * scale, scale])
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain(axes, grid="x")
