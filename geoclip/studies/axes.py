"""What the figures of a study share: variants and their colours, labels, and limits of axes."""

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

# Okabe, Ito, "Color Universal Design", 2008: distinct for colour-blind readers; its yellow is darker, for white paper.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#b8a800")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))  # the second: of the next seven variants
BETTER, WORSE, UNCLEAR = "#1f6fc4", "#d9480f", "#8b97a4"
MAX_LABEL = 30  # characters
FAR = 3.0  # times the span of the others; a variant farther off is written at the edge
BENCHMARKS = {"test": "test", "test_unseen_cells": "test, unseen cells", "val": "validation"}

Result = Mapping[str, Any]


def benchmarks_of(results: Result) -> list[tuple[str, Result]]:
    """Name and results of every benchmark; without a baseline, each of several variants gets an empty gain.

    Raises:
        DataError: there is none, or one without variants.
    """
    found: list[tuple[str, Result]] = []
    for name, benchmark in results.get("benchmarks", {}).items():
        variants = benchmark.get("variants", [])
        if len(variants) > 1 and all(is_baseline(variant) for variant in variants):
            variants = [{**variant, "gain": {}} for variant in variants]
        found.append((name, {**benchmark, "variants": variants}))
    if not found or not all(benchmark["variants"] for _, benchmark in found):
        raise DataError(f"study {results.get('study', '?')!r} has no results; run python -m geoclip.study again")
    return found


def benchmark_label(name: str, benchmark: Result) -> str:
    """The title of a benchmark's panels."""
    return f"{BENCHMARKS.get(name, name)}, {benchmark['n']:,} images"


def is_baseline(variant: Result) -> bool:
    """Whether the others are compared with this variant."""
    return variant.get("gain") is None


def baseline_of(benchmark: Result) -> Result:
    """The baseline, or the first variant if there is none."""
    variants: list[Result] = benchmark["variants"]
    return next(filter(is_baseline, variants), variants[0])


def short(label: str) -> str:
    """A label that fits beside a panel."""
    return shorten(label, MAX_LABEL, placeholder=" …")


def swept_values(results: Result) -> dict[str, float] | None:
    """The swept number by label, infinity for None; None unless one key is swept over at least two numbers."""
    if len(results.get("by", ())) != 1:
        return None
    values = {
        variant["label"]: variant["values"].get(results["by"][0])
        for _, benchmark in benchmarks_of(results)
        for variant in benchmark["variants"]
    }
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in values.values()):
        return None
    numbers = {label: math.inf if value is None else float(value) for label, value in values.items()}
    return numbers if sum(map(math.isfinite, numbers.values())) > 1 else None


def variant_styles(results: Result) -> dict[str, dict[str, Any]]:
    """Colour and line style by label: the baseline black, numbers light to dark, names by a palette."""
    variants = [variant for _, benchmark in benchmarks_of(results) for variant in benchmark["variants"]]
    styles: dict[str, dict[str, Any]] = {
        variant["label"]: {"color": INK, "linestyle": "-"} for variant in variants if is_baseline(variant)
    }
    if values := swept_values(results):
        ordered = sorted(values, key=lambda label: values[label])
        shades = colormaps["viridis_r"](np.linspace(0.1, 0.85, len(ordered)))  # darker ones look black
        colors = dict(zip(ordered, map(to_hex, shades), strict=True))
        return {label: styles.get(label, {"color": colors[label], "linestyle": "-"}) for label in ordered}
    others = dict.fromkeys(variant["label"] for variant in variants if variant["label"] not in styles)
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
        return UNCLEAR
    return BETTER if (gain["value"] > 0) != (metric == "median_km") else WORSE


def finite(value: float | None) -> float:
    """The number; 0 for None and values that are not finite, such as the spread of a single seed."""
    return value if value is not None and math.isfinite(value) else 0.0


def outliers(values: Mapping[str, float], keep: str, min_span: float) -> set[str]:
    """Up to two labels so far from the others that these would fill only a small part of the axis; never `keep`."""
    kept, found = dict(values), set[str]()
    while len(kept) > 3 and len(found) < 2:
        middle = float(np.median(list(kept.values())))
        farthest = max((label for label in kept if label != keep), key=lambda label: abs(kept[label] - middle))
        others = [value for label, value in kept.items() if label != farthest]
        if np.ptp(list(kept.values())) < FAR * max(np.ptp(others), min_span):
            break
        found.add(farthest)
        del kept[farthest]
    return found


def axis_limits(values: Sequence[float], min_span: float) -> tuple[float, float]:
    """Limits of an axis that shows the values with a margin and spans at least `min_span`."""
    low, high = min(values), max(values)
    missing = max(0.0, min_span - (high - low)) / 2
    margin = 0.09 * max(high - low, min_span)
    return low - missing - margin, high + missing + margin
