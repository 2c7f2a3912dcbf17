"""What the figures of a study share: which variants there are, their colours, and limits of axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from geoclip.errors import DataError
from geoclip.plotting.curves import INK

# Okabe, Ito, "Color Universal Design", 2008: told apart by all eyes; its yellow is darker here, for white paper.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#b8a800")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))  # the next seven variants, and those after
BETTER, WORSE = "#1f6fc4", "#d9480f"
LONGEST_LABEL = 30
FAR = 3.0  # times the others' span: what lies so far off is written at the edge
BENCHMARKS = {"test": "test", "test_unseen_cells": "test, unseen cells", "val": "validation"}

Result = Mapping[str, Any]


def benchmarks_of(results: Result) -> list[tuple[str, Result]]:
    """Name and result of every benchmark of a study; where nothing is the baseline, no variant is drawn as if it were.

    Raises:
        DataError: there is none, or one without variants.
    """
    found = list(results.get("benchmarks", {}).items())
    if not found or not all(benchmark.get("variants") for _, benchmark in found):
        raise DataError(
            f"study {results.get('study', '?')!r} holds no results to draw; run python -m geoclip.study again"
        )
    return [(name, _without_false_baselines(benchmark)) for name, benchmark in found]


def _without_false_baselines(benchmark: Result) -> Result:
    variants = benchmark["variants"]
    if len(variants) == 1 or any(variant.get("gain") is not None for variant in variants):
        return benchmark
    return {**benchmark, "variants": [{**variant, "gain": {}} for variant in variants]}


def benchmark_label(name: str, benchmark: Result) -> str:
    """What stands above a benchmark's panels."""
    return f"{BENCHMARKS.get(name, name)}, {benchmark['n']:,} images"


def is_baseline(variant: Result) -> bool:
    """Whether the others are compared with this one."""
    return variant.get("gain") is None


def short(label: str) -> str:
    """A label that fits beside a panel."""
    return shorten(label, LONGEST_LABEL, placeholder=" …")


def swept_values(results: Result) -> dict[str, float] | None:
    """The swept value by label where one key is swept over numbers; none and infinity come as inf; else None."""
    if len(results.get("by", ())) != 1:
        return None
    key, values = results["by"][0], dict[str, float]()
    for _, benchmark in benchmarks_of(results):
        for variant in benchmark["variants"]:
            value = variant["values"].get(key)
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
                return None
            values[variant["label"]] = math.inf if value is None else float(value)
    return values if sum(map(math.isfinite, values.values())) > 1 else None


def variant_styles(results: Result) -> dict[str, dict[str, Any]]:
    """Colour and dashes by label: the baseline black, numbers light to dark, names by a palette for all eyes."""
    labels = list(dict.fromkeys(v["label"] for _, b in benchmarks_of(results) for v in b["variants"]))
    base = [v["label"] for _, b in benchmarks_of(results) for v in b["variants"] if is_baseline(v)]
    others = [label for label in labels if label not in base]
    styles: dict[str, dict[str, Any]] = {label: {"color": INK, "linestyle": "-"} for label in base}
    values = swept_values(results)
    if values is not None:
        ordered = sorted(labels, key=lambda label: values[label])
        shades = colormaps["viridis_r"](
            np.linspace(0.1, 0.85, len(ordered))  # its darkest is nearly the baseline's black
        )
        colors = {label: to_hex(shade) for label, shade in zip(ordered, shades, strict=True)}
        return {label: styles.get(label, {"color": colors[label], "linestyle": "-"}) for label in ordered}
    for number, label in enumerate(others):
        line, color = divmod(number, len(OKABE_ITO))
        styles[label] = {"color": OKABE_ITO[color], "linestyle": DASHES[line % len(DASHES)]}
    return styles


def gain_color(variant: Result, metric: str) -> str:
    """Of a mark: black the baseline, blue better and orange worse where the interval excludes zero, else grey."""
    if is_baseline(variant):
        return INK
    gain = variant["gain"].get(metric)
    if not gain or not gain["excludes_zero"]:
        return "#8b97a4"
    return BETTER if (gain["value"] > 0) != (metric == "median_km") else WORSE


def finite(value: float | None) -> float:
    """The number, 0 for what is missing or not finite: the spread of a single seed."""
    return value if value is not None and math.isfinite(value) else 0.0


def outliers(values: Mapping[str, float], keep: str, least: float) -> set[str]:
    """Up to two labels so far from the others that these would share a small part of the axis.

    Args:
        values: by label.
        keep: a label that is never left out: the baseline.
        least: the others are thought to span at least so much.
    """
    kept, left_out = dict(values), set[str]()
    while len(kept) > 3 and len(left_out) < 2:
        middle = float(np.median(list(kept.values())))
        farthest = max((label for label in kept if label != keep), key=lambda label: abs(kept[label] - middle))
        others = [value for label, value in kept.items() if label != farthest]
        span = max(max(others) - min(others), least)
        if max(kept.values()) - min(kept.values()) < FAR * span:
            break
        left_out.add(farthest)
        del kept[farthest]
    return left_out


def reach(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits of an axis that holds the values with some air and spans at least `least`: noise is not blown up."""
    low, high = min(values), max(values)
    missing = max(0.0, least - (high - low)) / 2
    air = 0.09 * max(high - low, least)
    return low - missing - air, high + missing + air
