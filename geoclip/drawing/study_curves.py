"""The share of images within a distance, a line per variant, and how far each line lies from the baseline's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from geoclip.drawing.charts import INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.drawing.curves import FARTHEST_KM, NEAREST_KM, THRESHOLDS_KM
from geoclip.drawing.study_axes import (
    Result,
    benchmark_label,
    benchmarks_of,
    is_baseline,
    outliers,
    reach,
    short,
    variant_styles,
)
from geoclip.drawing.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure

TOP_IN, HEAD_IN, UPPER_IN, LOWER_IN = 1.15, 0.2, 3.0, 2.1
LEFT_IN, LEGEND_IN, GAP_IN = 0.8, 2.75, 0.75
MOST_SHADED = 4  # variants; more shades would be mud
LEAST_POINTS = 4.0


def draw_error_curves(results: Result, path: Path) -> None:
    """Above the share of images within d km, below its difference to the baseline's; means over seeds.

    Min to max over seeds is shaded for the baseline, and for all where they are few. The gallery's ceiling is dashed.

    Args:
        results: what results.json of a study holds.
        path: the PNG to write.

    Raises:
        DataError: there are no results.
    """
    benchmarks, styles = benchmarks_of(results), variant_styles(results)
    columns = min(2, len(benchmarks))
    width = (WIDTH_IN - LEFT_IN - LEGEND_IN - (columns - 1) * GAP_IN) / columns
    block = HEAD_IN + UPPER_IN + 0.3 + LOWER_IN + 0.95
    figure = new_figure(WIDTH_IN, TOP_IN + -(-len(benchmarks) // columns) * block - 0.15, PAPER)
    title = f"{results['study'] or 'study'}: share of images within a distance"
    text = "lines: means over seeds; shaded: least to most; dashed: the gallery's ceiling"
    heading(figure, title, text)
    for number, (name, benchmark) in enumerate(benchmarks):
        row, column = divmod(number, columns)
        left, top = LEFT_IN + column * (width + GAP_IN), TOP_IN + row * block
        panel_title(figure, left, top, benchmark_label(name, benchmark))
        upper = add_axes(figure, left, top + HEAD_IN, width, UPPER_IN)
        lower = add_axes(figure, left, top + HEAD_IN + UPPER_IN + 0.3, width, LOWER_IN)
        _shares(upper, benchmark, styles)
        _differences(lower, benchmark, styles)
        upper.tick_params(labelbottom=False)
        upper.set_xlabel("")
    _legend(figure, styles)
    save_figure(figure, path, colors=256)


def _shares(axes: Axes, benchmark: Result, styles: dict[str, dict[str, Any]]) -> None:
    drawn: set[tuple[float, ...]] = set()
    one_for_all = len({tuple(variant["curve"].get("ceiling") or ()) for variant in benchmark["variants"]}) == 1
    for variant in _baseline_last(benchmark):
        curve, style = variant["curve"], styles[variant["label"]]
        if _is_shaded(variant, benchmark):
            axes.fill_between(curve["km"], curve["low"], curve["high"], color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(curve["km"], curve["percent"], linewidth=2.2 if is_baseline(variant) else 1.6, **style)
        ceiling = tuple(curve.get("ceiling") or ())
        if ceiling and ceiling not in drawn:  # the galleries may differ
            drawn.add(ceiling)
            axes.plot(curve["km"], ceiling, linewidth=1.3, color=MUTED if one_for_all else style["color"],
                      linestyle=(0, (4, 2)), alpha=0.8, zorder=1.5)  # fmt: skip
    _distance_axis(axes)
    axes.set_ylim(0, 101)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g} %")


def _differences(axes: Axes, benchmark: Result, styles: dict[str, dict[str, Any]]) -> None:
    base = next((variant for variant in benchmark["variants"] if is_baseline(variant)), benchmark["variants"][0])
    zero: Floats = np.asarray(base["curve"]["percent"])
    most = {v["label"]: float(np.abs(np.asarray(v["curve"]["percent"]) - zero).max()) for v in benchmark["variants"]}
    left_out = outliers(most, base["label"], LEAST_POINTS)
    shown = [0.0]
    for variant in _baseline_last(benchmark):
        curve, style = variant["curve"], styles[variant["label"]]
        gain = np.asarray(curve["percent"]) - zero
        if _is_shaded(variant, benchmark):
            low, high = (np.asarray(curve[key]) - zero for key in ("low", "high"))
            axes.fill_between(curve["km"], low, high, color=style["color"], alpha=0.13, linewidth=0)
            shown += [low.min(), high.max()]
        axes.plot(curve["km"], gain, linewidth=1.4 if variant is base else 1.6, **style)
        if variant["label"] not in left_out:
            shown += [gain.min(), gain.max()]
    _distance_axis(axes)
    axes.set_ylim(*reach(shown, LEAST_POINTS))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:+g}" if value else "0")
    axes.set_title(
        f"minus the curve of {short(base['label'])}, percentage points", color=MUTED, fontsize=10, loc="left", pad=5
    )


def _baseline_last(benchmark: Result) -> list[Result]:
    """The baseline on top of the others."""
    return sorted(benchmark["variants"], key=is_baseline)


def _is_shaded(variant: Result, benchmark: Result) -> bool:
    return len(variant["seeds"]) > 1 and (is_baseline(variant) or len(benchmark["variants"]) <= MOST_SHADED)


def _distance_axis(axes: Axes) -> None:
    plain(axes)
    axes.set_xscale("log")
    axes.set_xlim(NEAREST_KM, FARTHEST_KM)
    axes.set_xticks(
        (NEAREST_KM, *THRESHOLDS_KM, 20_000), labels=["0.1", *(f"{km:,}" for km in THRESHOLDS_KM), "20,000"]
    )
    axes.minorticks_off()
    axes.set_xlabel("d, km", color=MUTED, fontsize=10.5)


def _legend(figure: Any, styles: dict[str, dict[str, Any]]) -> None:
    entries = [Line2D([], [], linewidth=2.4, label=short(label), **style) for label, style in styles.items()]
    height = figure.get_size_inches()[1]
    legend = figure.legend(
        handles=entries, loc="upper left", fontsize=10.5, frameon=False, labelcolor=INK, handlelength=2.3,
        bbox_to_anchor=((WIDTH_IN - LEGEND_IN + 0.15) / WIDTH_IN, 1 - (TOP_IN + HEAD_IN - 0.1) / height),
    )  # fmt: skip
    for text, label in zip(legend.get_texts(), styles, strict=True):
        text.set_fontweight("bold" if styles[label]["color"] == INK else "normal")
