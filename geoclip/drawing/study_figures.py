"""A study's measures against what was swept: a line where it is a number, a row of dots where it is a name."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoclip.drawing.charts import GRID, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.drawing.study_axes import (
    BETTER,
    WORSE,
    Result,
    benchmark_label,
    benchmarks_of,
    finite,
    gain_color,
    is_baseline,
    outliers,
    reach,
    short,
    swept_values,
)
from geoclip.drawing.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write
from geoclip.percent import percent_text

MEASURES = (("25", "within 25 km, %", 5.0), ("200", "within 200 km, %", 5.0), ("geoscore", "GeoScore", 150.0))
UNCLEAR = "#8b97a4"
LOG_FROM = 20.0  # times the smallest value: beyond it an axis is logarithmic
NEAREST = 0.05  # of the axis: nearer marks would touch
TOP_IN, PANEL_IN, HEAD_IN, ROW_IN = 1.15, 2.3, 0.42, 0.31


def draw_swept(results: Result, path: Path) -> None:
    """The shares within 25 and 200 km and the GeoScore of every variant: mean, standard deviation, single seeds.

    Args:
        results: what results.json of a study holds. One key swept over numbers makes a line, on a logarithmic axis
            where they span more than `LOG_FROM` times; anything else a row per variant.
        path: the PNG to write.

    Raises:
        DataError: there are no results.
    """
    benchmarks, values = benchmarks_of(results), swept_values(results)
    rows = max(len(benchmark["variants"]) for _, benchmark in benchmarks)
    panel = PANEL_IN if values else ROW_IN * rows + 0.15
    block = HEAD_IN + panel + (0.75 if values else 0.55)
    labels = [short(v["label"]) for _, benchmark in benchmarks for v in benchmark["variants"]]
    first = 0.85 if values else min(3.2, 0.5 + 0.085 * max(map(len, labels)))
    gap = 0.8 if values else 0.35
    width = (WIDTH_IN - first - 0.4 - 2 * gap) / 3
    figure = new_figure(WIDTH_IN, TOP_IN + len(benchmarks) * block, PAPER)
    _heading(figure, results, benchmarks[0][1])
    for number, (name, benchmark) in enumerate(benchmarks):
        top = TOP_IN + number * block
        panel_title(figure, 0.3, top, benchmark_label(name, benchmark))
        for column, (metric, label, least) in enumerate(MEASURES):
            axes = add_axes(figure, first + column * (width + gap), top + HEAD_IN, width, panel)
            plain(axes, grid="both" if values else "x")
            if values:
                _line(axes, benchmark, metric, values)
                axes.set_xlabel(results["by"][0].removeprefix("eval."), color=MUTED, fontsize=10)
            else:
                _rows(axes, benchmark, metric, named=column == 0)
            _limit(axes, benchmark, metric, least, upright=bool(values))
            axes.set_title(label, color=MUTED, fontsize=10.5, loc="left", pad=7)
    save_figure(figure, path, colors=256)


def _heading(figure: Figure, results: Result, benchmark: Result) -> None:
    swept = ", ".join(key.removeprefix("eval.") for key in results["by"])
    title = f"{results['study'] or 'study'}: by {swept}" if swept != results["study"] else swept
    seeds = max(len(variant["seeds"]) for variant in benchmark["variants"])
    bars = f"bars: ± standard deviation over {seeds} seeds, the pale dots" if seeds > 1 else "one seed each"
    heading(figure, title, f"{bars}; dashed: the gallery's ceiling")
    left = WIDTH_IN - 6.15
    marks = ((INK, "◆", "baseline"), (BETTER, "●", "better"), (WORSE, "●", "worse"),
             (UNCLEAR, "●", "difference may be zero"))  # fmt: skip
    for color, mark, text in marks:
        write(figure, left, 0.4, mark, color=color, fontsize=11)
        write(figure, left + 0.2, 0.4, text, color=MUTED, fontsize=10.5)
        left += 0.55 + 0.083 * len(text)


def _mark(axes: Axes, x: float, y: float, color: str, *, base: bool) -> None:
    axes.plot(x, y, "D" if base else "o", color=color, markersize=6.5, zorder=5, markeredgecolor=PAPER)


def _line(axes: Axes, benchmark: Result, metric: str, values: dict[str, float]) -> None:
    """Mean and spread over the swept number; zero and none stand apart at the ends of a logarithmic axis."""
    variants = sorted(benchmark["variants"], key=lambda variant: values[variant["label"]])
    places = _places(axes, [values[variant["label"]] for variant in variants])
    mean, spread = (np.array([finite(v["metrics"][metric][key]) for v in variants]) for key in ("mean", "sd"))
    joined = [n for n, variant in enumerate(variants) if math.isfinite(values[variant["label"]])]
    axes.fill_between(places[joined], (mean - spread)[joined], (mean + spread)[joined], color=BETTER, alpha=0.1,
                      linewidth=0)  # fmt: skip
    axes.plot(places[joined], mean[joined], color="#9db4cc", linewidth=1.8, zorder=2)
    for x, variant, y, sd in zip(places, variants, mean, spread, strict=True):
        color, base = gain_color(variant, metric), is_baseline(variant)
        seeds = variant["metrics"][metric]["per_seed"]
        axes.plot([x] * len(seeds), seeds, "o", color=color, markersize=3, alpha=0.3, markeredgewidth=0)
        axes.vlines(x, y - sd, y + sd, color=color, linewidth=1.8, zorder=4)
        _mark(axes, x, y, color, base=base)
        if base:
            axes.axhline(y, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ceilings = [variant.get("ceiling_percent", {}).get(metric) for variant in variants]
    if None not in ceilings:
        axes.plot(places, ceilings, color=MUTED, linewidth=1.3, linestyle=(0, (4, 2)), zorder=1)


def _places(axes: Axes, values: list[float]) -> Floats:
    """Where the sorted values stand, inf last; sets the axis, its ticks at the values themselves."""
    numbers = [value for value in values if math.isfinite(value)]
    inner, step = scaled(numbers)
    places = np.array([*inner, *[inner[-1] + step] * (len(values) - len(numbers))])
    air = 0.06 * (places[-1] - places[0])
    axes.set_xlim(places[0] - air, places[-1] + air)
    axes.set_xticks(places, labels=[_number(value) for value in values])
    if len(numbers) < len(values):  # none is no number: it stands apart
        axes.axvline(inner[-1] + 0.5 * step, color="#c4ccd6", linewidth=1, linestyle=(0, (2, 3)))
    return places


def scaled(numbers: list[float]) -> tuple[list[float], float]:
    """Places of the sorted numbers and the mean step: linear, logarithmic, or evenly where marks would touch."""
    above = [number for number in numbers if number > 0]
    if numbers[0] < 0 or not above or above[-1] <= LOG_FROM * above[0]:
        places = numbers
    else:
        places = [math.log2(number) for number in above]
        if len(above) < len(numbers):  # zero has no logarithm: one step below the smallest
            places = [places[0] - (places[-1] - places[0]) / max(len(above) - 1, 1), *places]
    least = min(after - before for before, after in pairwise(places)) / (places[-1] - places[0])
    if least < NEAREST:
        places = [float(number) for number in range(len(numbers))]
    return places, (places[-1] - places[0]) / (len(places) - 1)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    for least, unit, sign in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least and value % (unit / 10) == 0:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"


def _rows(axes: Axes, benchmark: Result, metric: str, *, named: bool) -> None:
    """A row per variant; the baseline's mean is carried through all."""
    variants = benchmark["variants"]
    for y, variant in enumerate(variants):
        cell, color, base = variant["metrics"][metric], gain_color(variant, metric), is_baseline(variant)
        mean, sd = cell["mean"], finite(cell["sd"])
        axes.plot(cell["per_seed"], [y] * len(cell["per_seed"]), "o", color=color, markersize=3.5, alpha=0.3,
                  markeredgewidth=0)  # fmt: skip
        axes.hlines(y, mean - sd, mean + sd, color=color, linewidth=2, zorder=4)
        _mark(axes, mean, y, color, base=base)
        if base:
            axes.axvline(mean, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        ceiling = variant.get("ceiling_percent", {}).get(metric)
        if ceiling is not None:
            axes.vlines(ceiling, y - 0.5, y + 0.5, color=MUTED, linewidth=1.3, linestyle=(0, (4, 2)), zorder=1)
    labels = [short(variant["label"]) for variant in variants] if named else [""] * len(variants)
    axes.set_yticks(range(len(variants)), labels=labels)
    axes.tick_params(axis="y", labelcolor=INK)
    for tick, variant in zip(axes.get_yticklabels(), variants, strict=True):
        tick.set_fontweight("bold" if is_baseline(variant) else "normal")
    axes.hlines(range(len(variants)), 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.6, zorder=0)
    axes.set_ylim(len(variants) - 0.4, -0.6)


def _limit(axes: Axes, benchmark: Result, metric: str, least: float, *, upright: bool) -> None:
    """The axis holds every seed and bar but those far off; a ceiling that is not near is said in words."""
    variants = benchmark["variants"]
    left_out = set() if upright else _left_out(benchmark, metric, least)
    shown = []
    for variant in variants:
        if variant["label"] not in left_out:
            cell, sd = variant["metrics"][metric], finite(variant["metrics"][metric]["sd"])
            shown += [*cell["per_seed"], cell["mean"] - sd, cell["mean"] + sd]
    low, high = reach(shown, least)
    ceilings = [c for v in variants if (c := v.get("ceiling_percent", {}).get(metric)) is not None]
    near = [ceiling for ceiling in ceilings if low <= ceiling < high + 0.4 * (high - low)]
    low, high = reach([*shown, *near], least)
    if len(near) < len(ceilings):
        ends = sorted({percent_text(min(ceilings), 0), percent_text(max(ceilings), 0)}, key=float)
        axes.annotate(f"ceiling {'–'.join(ends)} %", (1, 1), xytext=(0, 7), xycoords="axes fraction", ha="right",
                      textcoords="offset points", color=MUTED, fontsize=9)  # fmt: skip
    low = max(low, -0.03 * (high - low))
    (axes.set_ylim if upright else axes.set_xlim)(low, high)
    for y, variant in enumerate(variants):
        if variant["label"] in left_out:
            mean, color = variant["metrics"][metric]["mean"], gain_color(variant, metric)
            below, text = mean < low, f"{mean:,.0f}" if metric == "geoscore" else percent_text(mean)
            axes.text(0.012 if below else 0.988, y, f"◂ {text}" if below else f"{text} ▸", color=color, va="center",
                      ha="left" if below else "right", transform=axes.get_yaxis_transform(), fontsize=10,
                      bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})  # fmt: skip


def _left_out(benchmark: Result, metric: str, least: float) -> set[str]:
    means = {variant["label"]: variant["metrics"][metric]["mean"] for variant in benchmark["variants"]}
    base = next((variant["label"] for variant in benchmark["variants"] if is_baseline(variant)), "")
    return outliers(means, base, least)
