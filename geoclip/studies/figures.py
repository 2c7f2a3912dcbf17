"""Figures of a study: accuracy by variant, error curves, continents; and of a search."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from geoclip.data.blue_marble import read_earth
from geoclip.errors import AssetError, DataError
from geoclip.plotting.curves import COLORS, DASHED, GRID, INK, MUTED, PAPER, distance_axis, heading, panel_title, plain
from geoclip.plotting.details import CONTINENT_LABELS
from geoclip.plotting.report import draw_report_figures, read_results
from geoclip.plotting.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write
from geoclip.runs.metrics import read_rows
from geoclip.studies.axes import (
    BETTER,
    UNCLEAR,
    WORSE,
    Result,
    axis_limits,
    baseline_of,
    benchmark_label,
    benchmarks_of,
    finite,
    gain_color,
    is_baseline,
    outliers,
    short,
    swept_values,
    variant_styles,
)
from geoclip.studies.maps import draw_wins
from geoclip.studies.results import read_config
from geoclip.system.console import percent_text

log = logging.getLogger("geoclip")

EARTH_PX = 2160

METRICS = (("25", "within 25 km, %", 5.0), ("200", "within 200 km, %", 5.0), ("geoscore", "GeoScore", 150.0))
LOG_FROM = 20.0  # an axis is logarithmic if its values span more than this factor
MIN_GAP = 0.05  # of the axis; closer marks would touch
TOP_IN, PANEL_IN, HEAD_IN, ROW_IN = 1.15, 2.3, 0.42, 0.31
DOTTED = (0, (1, 2))


def draw_swept(results: Result, path: Path) -> None:
    """The shares within 25 and 200 km and the GeoScore of every variant: mean, standard deviation, single seeds.

    If one key is swept over numbers, the variants are joined by a line, on a logarithmic axis if the numbers span more
    than `LOG_FROM`; otherwise each variant is a row.

    Raises:
        DataError: there are no results.
    """
    benchmarks, values = benchmarks_of(results), swept_values(results)
    rows = max(len(benchmark["variants"]) for _, benchmark in benchmarks)
    panel = PANEL_IN if values else ROW_IN * rows + 0.15
    block = HEAD_IN + panel + (0.75 if values else 0.55)
    first, gap = (0.85, 0.8) if values else (_label_width_in(benchmarks, 0.5), 0.35)
    width = (WIDTH_IN - first - 0.4 - 2 * gap) / 3
    figure = new_figure(WIDTH_IN, TOP_IN + len(benchmarks) * block, PAPER)
    _swept_heading(figure, results, benchmarks[0][1])
    for number, (name, benchmark) in enumerate(benchmarks):
        top = TOP_IN + number * block
        panel_title(figure, 0.3, top, benchmark_label(name, benchmark))
        for column, (metric, label, min_span) in enumerate(METRICS):
            axes = add_axes(figure, first + column * (width + gap), top + HEAD_IN, width, panel)
            plain(axes, grid="both" if values else "x")
            if values:
                _line(axes, benchmark, metric, values)
                axes.set_xlabel(results["by"][0].removeprefix("eval."), color=MUTED, fontsize=10)
            else:
                _rows(axes, benchmark, metric, labelled=column == 0)
            _set_limits(axes, benchmark, metric, min_span, vertical=bool(values))
            axes.set_title(label, color=MUTED, fontsize=10.5, loc="left", pad=7)
    save_figure(figure, path, colors=256)


def _label_width_in(benchmarks: Sequence[tuple[str, Result]], margin: float) -> float:
    labels = [short(variant["label"]) for _, benchmark in benchmarks for variant in benchmark["variants"]]
    return min(3.2, margin + 0.085 * max(map(len, labels)))


def _swept_heading(figure: Figure, results: Result, benchmark: Result) -> None:
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


def _line(axes: Axes, benchmark: Result, metric: str, values: dict[str, float]) -> None:
    """Mean and spread over the swept number."""
    variants = sorted(benchmark["variants"], key=lambda variant: values[variant["label"]])
    x_V = _value_axis(axes, [values[variant["label"]] for variant in variants])
    mean_V, sd_V = (np.array([finite(v["metrics"][metric][key]) for v in variants]) for key in ("mean", "sd"))
    joined = [n for n, variant in enumerate(variants) if math.isfinite(values[variant["label"]])]
    low_V, high_V = mean_V - sd_V, mean_V + sd_V
    axes.fill_between(x_V[joined], low_V[joined], high_V[joined], color=BETTER, alpha=0.1, linewidth=0)
    axes.plot(x_V[joined], mean_V[joined], color="#9db4cc", linewidth=1.8, zorder=2)
    for x, variant in zip(x_V, variants, strict=True):
        _mark(axes, variant, metric, x=x)
    ceilings = [variant.get("ceiling_percent", {}).get(metric) for variant in variants]
    if None not in ceilings:
        axes.plot(x_V, ceilings, color=MUTED, linewidth=1.3, linestyle=DASHED, zorder=1)


def _mark(axes: Axes, variant: Result, metric: str, *, x: float | None = None, y: float | None = None) -> None:
    """Seeds, mean and standard deviation of one variant at `x` or `y`; a line marks the mean of the baseline."""
    cell, color, base = variant["metrics"][metric], gain_color(variant, metric), is_baseline(variant)
    for values, style in (
        (cell["per_seed"], {"marker": "o", "linestyle": "", "markersize": 3.3, "alpha": 0.3, "markeredgewidth": 0}),
        ([cell["mean"] + sign * finite(cell["sd"]) for sign in (-1, 1)], {"linewidth": 1.9, "solid_capstyle": "butt"}),
        ([cell["mean"]], {"marker": "D" if base else "o", "markersize": 6.5, "markeredgecolor": PAPER}),
    ):
        fixed = [y if x is None else x] * len(values)
        axes.plot(*((values, fixed) if x is None else (fixed, values)), color=color, zorder=4, **style)
    if base:
        (axes.axvline if x is None else axes.axhline)(
            cell["mean"], color=INK, linewidth=0.9, linestyle=DOTTED, zorder=1
        )


def _value_axis(axes: Axes, values: list[float]) -> Floats:
    """Positions of the sorted values, infinity last and set apart; sets the axis, with ticks at the values."""
    numbers = [value for value in values if math.isfinite(value)]
    inner, step = scaled(numbers)
    x_V = np.array([*inner, *[inner[-1] + step] * (len(values) - len(numbers))])
    margin = 0.06 * (x_V[-1] - x_V[0])
    axes.set_xlim(x_V[0] - margin, x_V[-1] + margin)
    axes.set_xticks(x_V, labels=[_number(value) for value in values])
    if len(numbers) < len(values):
        axes.axvline(inner[-1] + 0.5 * step, color="#c4ccd6", linewidth=1, linestyle=(0, (2, 3)))
    return x_V


def scaled(numbers: list[float]) -> tuple[list[float], float]:
    """Positions of sorted numbers and their mean step: linear, logarithmic, or equal steps where marks would touch."""
    above = [number for number in numbers if number > 0]
    if numbers[0] < 0 or not above or above[-1] <= LOG_FROM * above[0]:
        positions = numbers
    else:
        positions = [math.log2(number) for number in above]
        if len(above) < len(numbers):  # zero has no logarithm: one step below the smallest
            positions = [positions[0] - (positions[-1] - positions[0]) / max(len(above) - 1, 1), *positions]
    if min(after - before for before, after in pairwise(positions)) < MIN_GAP * (positions[-1] - positions[0]):
        positions = [float(number) for number in range(len(numbers))]
    return positions, (positions[-1] - positions[0]) / (len(positions) - 1)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    for least, unit, sign in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least and value % (unit / 10) == 0:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"


def _rows(axes: Axes, benchmark: Result, metric: str, *, labelled: bool) -> None:
    """A row per variant; a line through all rows marks the mean of the baseline."""
    variants = benchmark["variants"]
    for y, variant in enumerate(variants):
        _mark(axes, variant, metric, y=y)
        ceiling = variant.get("ceiling_percent", {}).get(metric)
        if ceiling is not None:
            axes.vlines(ceiling, y - 0.5, y + 0.5, color=MUTED, linewidth=1.3, linestyle=DASHED, zorder=1)
    _variant_labels(axes, variants if labelled else [])
    axes.set_yticks(range(len(variants)))
    axes.hlines(range(len(variants)), 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.6, zorder=0)
    axes.set_ylim(len(variants) - 0.4, -0.6)


def _variant_labels(axes: Axes, variants: Sequence[Result]) -> None:
    """Labels of the rows, the baseline's bold; none without variants."""
    axes.set_yticks(range(len(variants)), labels=[short(variant["label"]) for variant in variants])
    axes.tick_params(axis="y", labelcolor=INK, labelleft=bool(variants))
    for tick, variant in zip(axes.get_yticklabels(), variants, strict=True):
        tick.set_fontweight("bold" if is_baseline(variant) else "normal")


def _set_limits(axes: Axes, benchmark: Result, metric: str, min_span: float, *, vertical: bool) -> None:
    """Limits that show seeds, bars and near ceilings; outliers and far ceilings are written at the edge as numbers."""
    variants = benchmark["variants"]
    means = {variant["label"]: variant["metrics"][metric]["mean"] for variant in variants}
    left_out = set() if vertical else outliers(means, baseline_of(benchmark)["label"], min_span)
    shown = []
    for variant in variants:
        if variant["label"] not in left_out:
            cell, sd = variant["metrics"][metric], finite(variant["metrics"][metric]["sd"])
            shown += [*cell["per_seed"], cell["mean"] - sd, cell["mean"] + sd]
    low, high = axis_limits(shown, min_span)
    ceilings = [c for v in variants if (c := v.get("ceiling_percent", {}).get(metric)) is not None]
    near = [ceiling for ceiling in ceilings if low <= ceiling < high + 0.4 * (high - low)]
    low, high = axis_limits([*shown, *near], min_span)
    if len(near) < len(ceilings):
        ends = sorted({percent_text(min(ceilings), 0), percent_text(max(ceilings), 0)}, key=float)
        axes.annotate(f"ceiling {'–'.join(ends)} %", (1, 1), xytext=(0, 7), xycoords="axes fraction", ha="right",
                      textcoords="offset points", color=MUTED, fontsize=9)  # fmt: skip
    low = max(low, -0.03 * (high - low))
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    for y, variant in enumerate(variants):
        if variant["label"] in left_out:
            mean = means[variant["label"]]
            below, text = mean < low, f"{mean:,.0f}" if metric == "geoscore" else percent_text(mean)
            axes.text(0.012 if below else 0.988, y, f"◂ {text}" if below else f"{text} ▸", va="center",
                      ha="left" if below else "right", transform=axes.get_yaxis_transform(), fontsize=10,
                      color=gain_color(variant, metric),
                      bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})  # fmt: skip


CURVES_TOP_IN, CURVES_HEAD_IN, UPPER_IN, LOWER_IN = 1.15, 0.2, 3.0, 2.1
LEFT_IN, LEGEND_IN, CURVES_GAP_IN = 0.8, 2.75, 0.75
MAX_SHADED = 4  # variants
MIN_SPAN_POINTS = 4.0


def draw_error_curves(results: Result, path: Path) -> None:
    """Above, the share of images within d km; below, its difference from the baseline; means over seeds.

    The range over seeds is shaded for the baseline, and for all if there are few. The gallery's ceiling is dashed.

    Raises:
        DataError: there are no results.
    """
    benchmarks, styles = benchmarks_of(results), variant_styles(results)
    columns = min(2, len(benchmarks))
    width = (WIDTH_IN - LEFT_IN - LEGEND_IN - (columns - 1) * CURVES_GAP_IN) / columns
    block = CURVES_HEAD_IN + UPPER_IN + 0.3 + LOWER_IN + 0.95
    figure = new_figure(WIDTH_IN, CURVES_TOP_IN + -(-len(benchmarks) // columns) * block - 0.15, PAPER)
    title = f"{results['study'] or 'study'}: share of images within a distance"
    heading(figure, title, "lines: means over seeds; shaded: range over seeds; dashed: the gallery's ceiling")
    for number, (name, benchmark) in enumerate(benchmarks):
        row, column = divmod(number, columns)
        left, top = LEFT_IN + column * (width + CURVES_GAP_IN), CURVES_TOP_IN + row * block
        panel_title(figure, left, top, benchmark_label(name, benchmark))
        upper = add_axes(figure, left, top + CURVES_HEAD_IN, width, UPPER_IN)
        lower = add_axes(figure, left, top + CURVES_HEAD_IN + UPPER_IN + 0.3, width, LOWER_IN)
        zeros: Floats = np.zeros(len(benchmark["variants"][0]["curve"]["km"]))
        _curves(upper, benchmark, styles, zeros)
        _ceilings(upper, benchmark, styles)
        upper.set_ylim(0, 101)
        upper.yaxis.set_major_formatter(lambda value, _position: f"{value:g} %")
        upper.tick_params(labelbottom=False)
        upper.set_xlabel("")
        base = baseline_of(benchmark)
        lower.set_ylim(*axis_limits(_curves(lower, benchmark, styles, np.asarray(base["curve"]["percent"])),
                                    MIN_SPAN_POINTS))  # fmt: skip
        lower.yaxis.set_major_formatter(lambda value, _position: f"{value:+g}" if value else "0")
        text = f"minus the curve of {short(base['label'])}, percentage points"
        lower.set_title(text, color=MUTED, fontsize=10, loc="left", pad=5)
    _legend(figure, styles)
    save_figure(figure, path, colors=256)


def _curves(axes: Axes, benchmark: Result, styles: dict[str, dict[str, Any]], zero_K: Floats) -> list[float]:
    """A curve per variant minus `zero_K`, the baseline on top; returns the ends that the axis has to show."""
    base, few = baseline_of(benchmark), len(benchmark["variants"]) <= MAX_SHADED
    shares = {v["label"]: np.asarray(v["curve"]["percent"]) - zero_K for v in benchmark["variants"]}
    largest = {label: float(np.abs(share_K).max()) for label, share_K in shares.items()}
    left_out = outliers(largest, base["label"], MIN_SPAN_POINTS)
    shown = [0.0]
    for variant in sorted(benchmark["variants"], key=is_baseline):
        curve, style, share_K = variant["curve"], styles[variant["label"]], shares[variant["label"]]
        if len(variant["seeds"]) > 1 and (few or is_baseline(variant)):
            low_K, high_K = (np.asarray(curve[key]) - zero_K for key in ("low", "high"))
            axes.fill_between(curve["km"], low_K, high_K, color=style["color"], alpha=0.14, linewidth=0)
            shown += [low_K.min(), high_K.max()]
        axes.plot(curve["km"], share_K, linewidth=2.0 if is_baseline(variant) else 1.6, **style)
        if variant["label"] not in left_out:
            shown += [share_K.min(), share_K.max()]
    distance_axis(axes, "d, km")
    return shown


def _ceilings(axes: Axes, benchmark: Result, styles: dict[str, dict[str, Any]]) -> None:
    """The ceiling of every gallery, in the colour of its variant if they differ."""
    curves = {tuple(v["curve"].get("ceiling") or ()): v for v in benchmark["variants"]}
    for ceiling, variant in curves.items():
        if ceiling:
            color = MUTED if len(curves) == 1 else styles[variant["label"]]["color"]
            axes.plot(variant["curve"]["km"], ceiling, linewidth=1.3, color=color, linestyle=DASHED, alpha=0.8,
                      zorder=1.5)  # fmt: skip


def _legend(figure: Figure, styles: dict[str, dict[str, Any]]) -> None:
    entries = [Line2D([], [], linewidth=2.4, label=short(label), **style) for label, style in styles.items()]
    top = 1 - (CURVES_TOP_IN + CURVES_HEAD_IN - 0.1) / figure.get_size_inches()[1]
    legend = figure.legend(
        handles=entries, loc="upper left", fontsize=10.5, frameon=False, labelcolor=INK, handlelength=2.3,
        bbox_to_anchor=((WIDTH_IN - LEGEND_IN + 0.15) / WIDTH_IN, top),
    )  # fmt: skip
    for text, style in zip(legend.get_texts(), styles.values(), strict=True):
        text.set_fontweight("bold" if style["color"] == INK else "normal")


CONTINENTS_TOP_IN, CONTINENTS_HEAD_IN, CONTINENTS_ROW_IN = 1.2, 0.62, 0.36
KM = "200"
MIN_RANGE_POINTS = 5.0  # of the colours: smaller differences stay pale
MIN_IMAGES = 20  # differences over fewer images have no colour
DIFFERENCES = LinearSegmentedColormap.from_list("differences", [WORSE, "#f6c9b6", "#f6f8fa", "#bcd5ee", BETTER])


def draw_continents(results: Result, path: Path) -> None:
    """Percent of each continent's images within 200 km, for every variant and benchmark.

    Raises:
        DataError: there are no results, or none by continent.
    """
    benchmarks = [(n, b) for n, b in benchmarks_of(results) if all(v.get("by_continent") for v in b["variants"])]
    if not benchmarks:
        raise DataError(f"study {results.get('study', '?')!r} has no accuracy per continent; evaluate its runs again")
    left = _label_width_in(benchmarks, 0.6)
    heights = [CONTINENTS_ROW_IN * len(benchmark["variants"]) for _, benchmark in benchmarks]
    total_in = CONTINENTS_TOP_IN + sum(heights) + (CONTINENTS_HEAD_IN + 0.5) * len(heights) - 0.1
    figure = new_figure(WIDTH_IN, total_in, PAPER)
    title = f"{results['study'] or 'study'}: percent within {KM} km, by continent"
    text = f"means over seeds; blue: more than the baseline (bold), orange: less; no colour under {MIN_IMAGES} images"
    heading(figure, title, text)
    top = CONTINENTS_TOP_IN
    for (name, benchmark), height in zip(benchmarks, heights, strict=True):
        panel_title(figure, 0.3, top, benchmark_label(name, benchmark))
        _cells(add_axes(figure, left, top + CONTINENTS_HEAD_IN, WIDTH_IN - left - 0.3, height), benchmark)
        top += CONTINENTS_HEAD_IN + height + 0.5
    save_figure(figure, path, colors=256)


def _cells(axes: Axes, benchmark: Result) -> None:
    """A row per variant, a column per continent; the colour is the difference from the baseline."""
    variants, base = benchmark["variants"], baseline_of(benchmark)["by_continent"]
    names = sorted(base, key=lambda name: -base[name]["n"])
    percent = np.array([[v["by_continent"].get(name, {}).get(KM, np.nan) for name in names] for v in variants])
    gain = percent - np.array([base[name][KM] for name in names])
    many = np.array([base[name]["n"] >= MIN_IMAGES for name in names])
    known = np.abs(gain[:, many][~np.isnan(gain[:, many])])
    most = max(MIN_RANGE_POINTS, float(np.quantile(known, 0.85)) if len(known) else 0.0)  # not of one extreme row
    axes.imshow(np.where(many, gain, 0.0), cmap=DIFFERENCES, norm=TwoSlopeNorm(0, -most, most), aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        strong = many[column] and abs(gain[row, column]) > 0.75 * most
        axes.text(column, row, percent_text(value), ha="center", va="center", fontsize=10,
                  fontweight="bold" if is_baseline(variants[row]) else "normal",
                  color=PAPER if strong else INK if many[column] else MUTED)  # fmt: skip
    heads = [f"{CONTINENT_LABELS.get(name, name)}\n{base[name]['n']:,}" for name in names]
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), labels=heads, color=MUTED, fontsize=9.5)
    _variant_labels(axes, variants)
    axes.set_xticks(np.arange(0.5, len(names)), minor=True)
    axes.set_yticks(np.arange(0.5, len(variants)), minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=2)
    axes.tick_params(length=0, which="both", labelsize=10, pad=6)
    axes.spines[:].set_visible(False)


COLUMNS, PANEL_W_IN, PANEL_H_IN, SEARCH_TOP_IN, SEARCH_GAP_IN = 3, 3.3, 2.05, 1.25, 1.0


def draw_search(account: Mapping[str, Any], path: Path) -> None:
    """One panel of all points in the order of their runs, and one per axis of the space.

    `account` is a runs/.search/*.json; failed points are left out.

    Raises:
        DataError: no point was finished.
    """
    scored = [trial for trial in account["trials"] if trial["geoscore"] is not None]
    if not scored:
        raise DataError("no point of this search was finished: nothing to draw")
    rows = -(-(len(account["axes"]) + 1) // COLUMNS)
    figure = new_figure(WIDTH_IN, SEARCH_TOP_IN + rows * (PANEL_H_IN + SEARCH_GAP_IN), PAPER)
    heading(figure, f"{account['name']}: GeoScore on the validation split, {len(scored)} points", "orange: the best")
    for number, axis in enumerate([None, *account["axes"]]):
        row, column = divmod(number, COLUMNS)
        left, top = 0.8 + column * (PANEL_W_IN + 0.75), SEARCH_TOP_IN + row * (PANEL_H_IN + SEARCH_GAP_IN)
        axes = add_axes(figure, left, top, PANEL_W_IN, PANEL_H_IN)
        write(figure, left, top - 0.12, axis["key"] if axis else "in order", color=INK, fontsize=12)
        plain(axes)
        if axis:
            _score_by_value(axes, scored, axis)
        else:
            scores, numbers = ([trial[key] for trial in scored] for key in ("geoscore", "number"))
            axes.step(numbers, np.maximum.accumulate(scores), where="post", color=COLORS[1], linewidth=1.8)
            axes.plot(numbers, scores, "o", color=COLORS[0], markersize=5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("point; line: the best so far", color=MUTED, fontsize=10)
    save_figure(figure, path)


def _score_by_value(axes: Axes, scored: Sequence[Mapping[str, Any]], axis: Mapping[str, Any]) -> None:
    """GeoScore over the values of one axis; points that were stopped before it got a value are left out."""
    known = [trial for trial in scored if axis["key"] in trial["values"]]
    choices, scores = axis.get("values"), [trial["geoscore"] for trial in known]
    x = [trial["values"][axis["key"]] for trial in known]
    x = [choices.index(value) for value in x] if choices else x
    best = int(np.argmax(scores))
    axes.plot(x, scores, "o", color=COLORS[0], markersize=5)
    axes.plot(x[best], scores[best], "o", color=COLORS[1], markersize=8)
    if choices:
        axes.set_xticks(range(len(choices)), labels=[str(choice) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
        return
    low, high = axis["low"], axis["high"]
    ticks = (np.geomspace if axis["log"] else np.linspace)(low, high, 5)
    if axis["whole"]:
        ticks = np.unique(ticks.round())
    if axis["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)
    axes.set_xticks(ticks, labels=[f"{tick:.2g}" if tick < 100 else f"{tick:.0f}" for tick in ticks])


def draw_study(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that the study has data for; returns the paths and what each shows."""
    if not results["by"]:
        return _copy_report_figures(results, folder)
    drawn = []
    for name, draw, text in (
        ("swept", draw_swept, f"accuracy against {', '.join(results['by'])}"),
        ("curves", draw_error_curves, "share of images within a distance"),
        ("continents", draw_continents, "accuracy by continent"),
    ):
        draw(results, folder / f"{name}.png")
        drawn.append((folder / f"{name}.png", text))
    return [*drawn, *_draw_all_wins(results, folder)]


def _copy_report_figures(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """For a study without a swept key: the figures of the first seed's report, and the map of its data set."""
    variant = next(iter(results["benchmarks"].values()))["variants"][0]
    run = Path(variant["evaluations"][0]).parent.parent
    figures = draw_report_figures(run, read_rows(run / "metrics.jsonl"), read_results(run), read_earth(EARTH_PX))
    distribution = Path(read_config(run)["data"]["root"]) / "distribution.png"
    figures |= {"distribution": distribution} if distribution.is_file() else {}
    for name, path in figures.items():
        shutil.copyfile(path, folder / f"{name}.png")
    return [(folder / f"{name}.png", f"{name.replace('_', ' ')}, seed {variant['seeds'][0]}") for name in figures]


def _draw_all_wins(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """For every benchmark, where the best of the other variants wins and loses against the baseline."""
    drawn = []
    for benchmark, found in results["benchmarks"].items():
        base, *others = found["variants"]
        if base["gain"] is not None or not others or others[0]["gain"] is None:
            return []  # no baseline
        best = max(others, key=lambda variant: variant["metrics"]["geoscore"]["mean"])
        try:
            background = read_earth(EARTH_PX)
        except AssetError as error:
            log.warning("no maps of wins: %s", error)
            return []
        path = folder / f"wins_{benchmark}.png"
        seeds = sorted(set(base["seeds"]) & set(best["seeds"]))
        before, after = ([Path(one["evaluations"][one["seeds"].index(seed)]) for seed in seeds] for one in (base, best))
        draw_wins(before, after, background, path, f"{best['label']} against {base['label']}, {benchmark}")
        drawn.append((path, f"where {best['label']} is nearer than {base['label']}, {benchmark}"))
    return drawn
