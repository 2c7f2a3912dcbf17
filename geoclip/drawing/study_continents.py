"""Accuracy per continent: a row per variant, coloured by how much it has over the baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from geoclip.drawing.charts import INK, MUTED, PAPER, heading, panel_title
from geoclip.drawing.details_table import CONTINENT_LABELS
from geoclip.drawing.study_axes import BETTER, WORSE, Result, benchmark_label, benchmarks_of, is_baseline, short
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, save_figure
from geoclip.errors import DataError
from geoclip.percent import percent_text

KM = "200"
TOP_IN, HEAD_IN, ROW_IN = 1.2, 0.62, 0.36
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
    blocks = [HEAD_IN + ROW_IN * len(benchmark["variants"]) + 0.5 for _, benchmark in benchmarks]
    figure = new_figure(WIDTH_IN, TOP_IN + sum(blocks) - 0.1, PAPER)
    title = f"{results['study'] or 'study'}: percent within {km} km, by continent"
    text = f"means over seeds; blue: more than the baseline (bold), orange: less; no colour under {FEWEST} images"
    heading(figure, title, text)
    top = TOP_IN
    for (name, benchmark), block in zip(benchmarks, blocks, strict=True):
        panel_title(figure, 0.3, top, benchmark_label(name, benchmark))
        height = ROW_IN * len(benchmark["variants"])
        _cells(add_axes(figure, left, top + HEAD_IN, WIDTH_IN - left - 0.3, height), benchmark, km)
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
