"""Figures of a study: gains, curves over steps, maps, continents, searches."""

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
from geoclip.plotting.curves import (
    COLORS,
    FARTHEST_KM,
    GRID,
    INK,
    MUTED,
    NEAREST_KM,
    PAPER,
    THRESHOLDS_KM,
    heading,
    panel_title,
    plain,
)
from geoclip.plotting.details import CONTINENT_LABELS
from geoclip.plotting.report import draw_report_figures, read_results
from geoclip.plotting.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write
from geoclip.runs.metrics import read_rows
from geoclip.studies.axes import (
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
    variant_styles,
)
from geoclip.studies.maps import draw_wins
from geoclip.studies.results import read_config
from geoclip.system.console import percent_text

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


CURVES_TOP_IN, CURVES_HEAD_IN, UPPER_IN, LOWER_IN = 1.15, 0.2, 3.0, 2.1
LEFT_IN, LEGEND_IN, CURVES_GAP_IN = 0.8, 2.75, 0.75
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
    width = (WIDTH_IN - LEFT_IN - LEGEND_IN - (columns - 1) * CURVES_GAP_IN) / columns
    block = CURVES_HEAD_IN + UPPER_IN + 0.3 + LOWER_IN + 0.95
    figure = new_figure(WIDTH_IN, CURVES_TOP_IN + -(-len(benchmarks) // columns) * block - 0.15, PAPER)
    title = f"{results['study'] or 'study'}: share of images within a distance"
    text = "lines: means over seeds; shaded: least to most; dashed: the gallery's ceiling"
    heading(figure, title, text)
    for number, (name, benchmark) in enumerate(benchmarks):
        row, column = divmod(number, columns)
        left, top = LEFT_IN + column * (width + CURVES_GAP_IN), CURVES_TOP_IN + row * block
        panel_title(figure, left, top, benchmark_label(name, benchmark))
        upper = add_axes(figure, left, top + CURVES_HEAD_IN, width, UPPER_IN)
        lower = add_axes(figure, left, top + CURVES_HEAD_IN + UPPER_IN + 0.3, width, LOWER_IN)
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
        bbox_to_anchor=((WIDTH_IN - LEGEND_IN + 0.15) / WIDTH_IN, 1 - (CURVES_TOP_IN + CURVES_HEAD_IN - 0.1) / height),
    )  # fmt: skip
    for text, label in zip(legend.get_texts(), styles, strict=True):
        text.set_fontweight("bold" if styles[label]["color"] == INK else "normal")


KM = "200"
CONTINENTS_TOP_IN, CONTINENTS_HEAD_IN, CONTINENTS_ROW_IN = 1.2, 0.62, 0.36
LEAST_REACH = 5.0  # percentage points: smaller differences stay pale
FEWEST = 20  # images: of fewer a difference has no colour
DIFFERENCES = LinearSegmentedColormap.from_list("differences", [WORSE, "#f6c9b6", "#f6f8fa", "#bcd5ee", BETTER])


def draw_continents(results: Result, path: Path, km: str = KM) -> None:
    """Percent of each continent's images within a distance, for every variant and benchmark.

    Args:
        results: what results.json of a study holds.
        path: the PNG to write.
        km: one of the distances measured.

    Raises:
        DataError: there are no results, or none by continent.
    """
    benchmarks = [(n, b) for n, b in benchmarks_of(results) if all(v.get("by_continent") for v in b["variants"])]
    if not benchmarks:
        raise DataError(f"study {results.get('study', '?')!r} holds no accuracy per continent; evaluate its runs again")
    labels = [short(variant["label"]) for _, benchmark in benchmarks for variant in benchmark["variants"]]
    left = min(3.2, 0.6 + 0.085 * max(map(len, labels)))
    blocks = [CONTINENTS_HEAD_IN + CONTINENTS_ROW_IN * len(benchmark["variants"]) + 0.5 for _, benchmark in benchmarks]
    figure = new_figure(WIDTH_IN, CONTINENTS_TOP_IN + sum(blocks) - 0.1, PAPER)
    title = f"{results['study'] or 'study'}: percent within {km} km, by continent"
    text = f"means over seeds; blue: more than the baseline (bold), orange: less; no colour under {FEWEST} images"
    heading(figure, title, text)
    top = CONTINENTS_TOP_IN
    for (name, benchmark), block in zip(benchmarks, blocks, strict=True):
        panel_title(figure, 0.3, top, benchmark_label(name, benchmark))
        height = CONTINENTS_ROW_IN * len(benchmark["variants"])
        _cells(add_axes(figure, left, top + CONTINENTS_HEAD_IN, WIDTH_IN - left - 0.3, height), benchmark, km)
        top += block
    save_figure(figure, path, colors=256)


def _cells(axes: Axes, benchmark: Result, km: str) -> None:
    variants = benchmark["variants"]
    base = next((variant for variant in variants if is_baseline(variant)), variants[0])["by_continent"]
    names = sorted(base, key=lambda name: -base[name]["n"])
    percent = np.array([[v["by_continent"].get(name, {}).get(km, np.nan) for name in names] for v in variants])
    gain = percent - np.array([base[name][km] for name in names])
    many = np.array([base[name]["n"] >= FEWEST for name in names])
    known = np.abs(gain[:, many][~np.isnan(gain[:, many])])
    most = max(LEAST_REACH, float(np.quantile(known, 0.85)) if len(known) else 0.0)  # one odd row leaves others colour
    axes.imshow(np.where(many, gain, 0.0), cmap=DIFFERENCES, norm=TwoSlopeNorm(0, -most, most), aspect="auto")
    for row, variant in enumerate(variants):
        for column, value in enumerate(percent[row]):
            strong = many[column] and abs(gain[row, column]) > 0.75 * most
            weight = "bold" if is_baseline(variant) else "normal"
            text = percent_text(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=10, fontweight=weight,
                      color=PAPER if strong else INK if many[column] else MUTED)  # fmt: skip
    heads = [f"{CONTINENT_LABELS.get(name, name)}\n{base[name]['n']:,}" for name in names]
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), labels=heads, color=MUTED, fontsize=9.5)
    axes.set_yticks(range(len(variants)), labels=[short(variant["label"]) for variant in variants], color=INK)
    for tick, variant in zip(axes.get_yticklabels(), variants, strict=True):
        tick.set_fontweight("bold" if is_baseline(variant) else "normal")
    axes.set_xticks(np.arange(0.5, len(names)), minor=True)
    axes.set_yticks(np.arange(0.5, len(variants)), minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=2)
    axes.tick_params(length=0, which="both", labelsize=10, pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)


COLUMNS, PANEL_W_IN, PANEL_H_IN, SEARCH_TOP_IN, SEARCH_GAP_IN = 3, 3.3, 2.05, 1.25, 1.0


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
    figure = new_figure(WIDTH_IN, SEARCH_TOP_IN + rows * (PANEL_H_IN + SEARCH_GAP_IN), PAPER)
    title = f"{account['name']}: GeoScore on the validation split, {len(scored)} points"
    heading(figure, title, "orange: the best")
    for number, axis in enumerate([None, *axes_of_space]):
        row, column = divmod(number, COLUMNS)
        left, top = 0.8 + column * (PANEL_W_IN + 0.75), SEARCH_TOP_IN + row * (PANEL_H_IN + SEARCH_GAP_IN)
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


log = logging.getLogger("geoclip")

EARTH_PX = 2160


def draw_study(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that the study has something for. Returns their files and what they show."""
    if not results["by"]:
        return _of_one_run(results, folder)
    drawn = []
    for name, draw, text in (
        ("swept", draw_swept, f"accuracy against {', '.join(results['by'])}"),
        ("curves", draw_error_curves, "share of images within a distance"),
        ("continents", draw_continents, "accuracy by continent"),
    ):
        draw(dict(results), folder / f"{name}.png")
        drawn.append((folder / f"{name}.png", text))
    return [*drawn, *_wins(results, folder)]


def _of_one_run(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Where nothing is varied: the figures of the first seed's report, and its data set's."""
    variant = next(iter(results["benchmarks"].values()))["variants"][0]
    run = Path(variant["evaluations"][0]).parent.parent
    figures = draw_report_figures(run, read_rows(run / "metrics.jsonl"), read_results(run), read_earth(EARTH_PX))
    distribution = Path(read_config(run)["data"]["root"]) / "distribution.png"
    figures |= {"distribution": distribution} if distribution.is_file() else {}
    drawn = []
    for name, path in figures.items():
        shutil.copyfile(path, folder / f"{name}.png")
        drawn.append((folder / f"{name}.png", f"{name.replace('_', ' ')}, seed {variant['seeds'][0]}"))
    return drawn


def _wins(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Where the best of the other variants wins and loses against the baseline, on every benchmark."""
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
        pairs = sorted(set(base["seeds"]) & set(best["seeds"]))
        before, after = ([Path(one["evaluations"][one["seeds"].index(seed)]) for seed in pairs] for one in (base, best))
        draw_wins(before, after, background, path, f"{best['label']} against {base['label']}, {benchmark}")
        drawn.append((path, f"where {best['label']} is nearer than {base['label']}, {benchmark}"))
    return drawn
