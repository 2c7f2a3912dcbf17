"""A search: how the best came about, and the score against each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from geoclip.drawing.charts import COLORS, INK, MUTED, PAPER, heading, plain
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, save_figure, write
from geoclip.errors import DataError

COLUMNS, PANEL_W_IN, PANEL_H_IN, TOP_IN, GAP_IN = 3, 3.3, 2.05, 1.25, 1.0


def draw_search(account: Mapping[str, Any], path: Path) -> None:
    """One panel for the order in which points were run, one per axis of the space.

    Args:
        account: what runs/.search/*.json holds; points that failed are left out.
        path: the PNG to write.

    Raises:
        DataError: no point was finished.
    """
    scored = [trial for trial in account["trials"] if trial["geoscore"] is not None]
    if not scored:
        raise DataError("no point of this search was finished: nothing to draw")
    axes_of_space = account["axes"]
    rows = -(-(len(axes_of_space) + 1) // COLUMNS)
    figure = new_figure(WIDTH_IN, TOP_IN + rows * (PANEL_H_IN + GAP_IN), PAPER)
    title = f"{account['name']}: GeoScore on the validation split, {len(scored)} points"
    heading(figure, title, "orange: the best")
    for number, axis in enumerate([None, *axes_of_space]):
        row, column = divmod(number, COLUMNS)
        left, top = 0.8 + column * (PANEL_W_IN + 0.75), TOP_IN + row * (PANEL_H_IN + GAP_IN)
        axes = add_axes(figure, left, top, PANEL_W_IN, PANEL_H_IN)
        write(figure, left, top - 0.12, axis["key"] if axis else "in order", color=INK, fontsize=12)
        plain(axes)
        if axis is None:
            _order(axes, scored)
        else:
            _against(axes, scored, axis)
    save_figure(figure, path)


def _order(axes: Axes, scored: Sequence[Mapping[str, Any]]) -> None:
    scores = [trial["geoscore"] for trial in scored]
    numbers = [trial["number"] for trial in scored]
    axes.step(numbers, np.maximum.accumulate(scores), where="post", color=COLORS[1], linewidth=1.8)
    axes.plot(numbers, scores, "o", color=COLORS[0], markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("point; line: the best so far", color=MUTED, fontsize=10)


def _against(axes: Axes, scored: Sequence[Mapping[str, Any]], axis: Mapping[str, Any]) -> None:
    """Points without this value were cut short."""
    known = [trial for trial in scored if axis["key"] in trial["values"]]
    values = [trial["values"][axis["key"]] for trial in known]
    scores = [trial["geoscore"] for trial in known]
    choices = axis.get("values")
    places = [choices.index(value) for value in values] if choices else values
    axes.plot(places, scores, "o", color=COLORS[0], markersize=5)
    best = int(np.argmax(scores))
    axes.plot(places[best], scores[best], "o", color=COLORS[1], markersize=8)
    if choices:
        axes.set_xticks(range(len(choices)), labels=[str(choice) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
        return
    space = np.geomspace if axis["log"] else np.linspace
    ticks = space(axis["low"], axis["high"], 5)
    if axis["whole"]:
        ticks = np.unique(ticks.round())
    if axis["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, labels=[f"{tick:.2g}" if tick < 100 else f"{tick:.0f}" for tick in ticks])
    margin = (axis["high"] / axis["low"]) ** 0.04 if axis["log"] else 0.04 * (axis["high"] - axis["low"])
    low, high = axis["low"], axis["high"]
    axes.set_xlim((low / margin, high * margin) if axis["log"] else (low - margin, high + margin))
