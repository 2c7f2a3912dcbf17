"""Curves: training, accuracy over distance, calibration, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from geoclip.errors import DataError
from geoclip.evaluation.calibration import Calibration
from geoclip.plotting.tables import tta_note
from geoclip.plotting.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write

PAPER, INK, MUTED, GRID = "#ffffff", "#1b2733", "#5d6b7a", "#e3e8ee"
COLORS = ("#1f6fc4", "#d9480f", "#0b8a6d", "#8a3ffc", "#b5179e", "#946200")


def plain(axes: Axes, *, grid: Literal["both", "x", "y"] = "both") -> None:
    """White, a faint grid, no tick marks, only the lower spine; none where the grid is upright alone."""
    axes.set_facecolor(PAPER)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=10, length=0, pad=5, which="both")
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom" and grid != "x")
        spine.set_edgecolor("#aab4c0")


def heading(figure: Figure, title: str, text: str = "", right: str = "") -> None:
    """The figure's title, a line of explanation below it, and another at the right edge."""
    write(figure, 0.3, 0.4, title, color=INK, fontsize=14, fontweight="bold")
    write(figure, 0.3, 0.7, text, color=MUTED, fontsize=10.5)
    write(figure, WIDTH_IN - 0.3, 0.4, right, color=MUTED, fontsize=10.5, ha="right")


def panel_title(figure: Figure, left: float, top: float, text: str) -> None:
    """The bold line above a panel, in inches from the figure's upper left corner."""
    write(figure, left, top, text, color=INK, fontsize=12, fontweight="bold")


Row = Mapping[str, Any]

THRESHOLDS_KM = (1, 25, 200, 750, 2500)
NEAREST_KM, FARTHEST_KM = 0.1, 20_016.0  # the axis of errors; what is nearer is drawn at its left end
BINS_PER_DECADE = 8
DASHED = (0, (4, 2))
SMOOTHED_FROM = 40  # rows; fewer are shown as they are


def draw_training(rows: Sequence[Row], path: Path) -> None:
    """Loss, in-batch recall, validation accuracy, learning rate, temperature and throughput over samples seen.

    Args:
        rows: the rows of metrics.jsonl; those of kind `train` and `val` are drawn, values that are not finite are
            gaps, and a panel without values says so.
        path: the PNG to write.

    Raises:
        DataError: there is no row of kind `train`.
    """
    train = [row for row in rows if row.get("kind") == "train"]
    if not train:
        raise DataError("metrics.jsonl holds no row of kind 'train' yet: nothing to draw")
    samples = np.array([row["samples"] for row in train], dtype=np.float64)
    temperature = 1 / _column(train, "logit_scale")
    panels: list[tuple[str, Callable[[Axes], None]]] = [
        ("loss, nats", lambda axes: _curve(axes, samples, _column(train, "loss"), COLORS[0])),
        ("in-batch recall", lambda axes: _recall(axes, samples, _column(train, "in_batch_recall"))),
        ("validation accuracy", lambda axes: _validation(axes, train, rows)),
        ("learning rate", lambda axes: _learning_rate(axes, samples, _column(train, "lr"))),
        ("temperature", lambda axes: _curve(axes, samples, temperature, COLORS[4], smooth=False)),
        ("throughput, samples/s", lambda axes: _curve(axes, samples, _column(train, "samples_per_s"), COLORS[5])),
    ]
    width, height = 3.3, 2.05
    figure = new_figure(WIDTH_IN, 6.1, PAPER)
    for number, (title, draw) in enumerate(panels):
        row, column = divmod(number, 3)
        left, top = 0.75 + column * (width + 0.8), 0.5 + row * (height + 0.85)
        panel_title(figure, left, top - 0.14, title)
        axes = add_axes(figure, left, top, width, height)
        plain(axes)
        draw(axes)
        axes.set_xlim(0, samples[-1] * 1.02 or 1)
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        if row == 1:
            axes.set_xlabel("samples seen", color=MUTED, fontsize=10.5)
    save_figure(figure, path)


def _column(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """The key's value of every row; NaN where it is missing or not a finite number."""
    values = np.array([row[key] if row.get(key) is not None else math.nan for row in rows], dtype=np.float64)
    return np.where(np.isfinite(values), values, math.nan)


def _curve(axes: Axes, x: Floats, y: Floats, color: str, *, smooth: bool = True) -> None:
    """The values; many noisy ones pale, with a running mean over them."""
    finite = np.isfinite(y)
    if not finite.any():
        _say(axes, "no values")
        return
    noisy = smooth and finite.sum() >= SMOOTHED_FROM
    marker = "o" if len(x) < 12 else None
    axes.plot(x, y, color=color, alpha=0.28 if noisy else 1, linewidth=1 if noisy else 1.8, marker=marker, ms=4)
    if noisy:
        axes.plot(x[finite], _running_mean(y[finite], len(x) // 30 + 1), color=color, linewidth=2)


def _running_mean(y: Floats, reach: int) -> NDArray[np.float64]:
    """Mean over `reach` values to either side, fewer at the ends."""
    sums = np.concatenate(([0.0], np.cumsum(y)))
    first = np.maximum(np.arange(len(y)) - reach, 0)
    last = np.minimum(np.arange(len(y)) + reach + 1, len(y))
    mean: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return mean


def _recall(axes: Axes, samples: Floats, recall: Floats) -> None:
    _curve(axes, samples, recall, COLORS[2])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{100 * value:g} %"))


def _learning_rate(axes: Axes, samples: Floats, lr: Floats) -> None:
    _curve(axes, samples, lr, COLORS[3], smooth=False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))


def _validation(axes: Axes, train: Sequence[Row], rows: Sequence[Row]) -> None:
    """Accuracy within 25, 200 and 750 km on the validation split."""
    val = [row for row in rows if row.get("kind") == "val"]
    if not val:
        _say(axes, "not validated yet")
        return
    steps, seen = ([row[key] for row in train] for key in ("step", "samples"))
    x = np.array([row["samples"] if "samples" in row else np.interp(row["step"], steps, seen) for row in val])
    for km, color in (("750", COLORS[0]), ("200", COLORS[1]), ("25", COLORS[2])):
        y = _column([row["accuracy_percent"] for row in val], km)
        if np.isfinite(y).any():
            axes.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=3.5, label=f"within {km} km")
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g} %"))
    axes.legend(loc="best", fontsize=9, framealpha=0.85, edgecolor=GRID)


def draw_errors(error_km: Mapping[str, Floats], ceiling_km: Mapping[str, Floats] | None, path: Path) -> None:
    """The histogram of errors and the share of images within a distance, both on a logarithmic axis.

    Args:
        error_km: by benchmark, (N,) distances of the predictions from the truth.
        ceiling_km: by benchmark, (N,) distances of the gallery's nearest places from the truth: what a perfect
            model would miss by. Drawn dashed. A benchmark may be absent.
        path: the PNG to write.

    Raises:
        DataError: no benchmark, an empty one, or a distance that is not finite and positive.
    """
    if not error_km:
        raise DataError("there is no benchmark whose errors could be drawn")
    errors = {name: _checked_km(km, f"errors on {name!r}") for name, km in error_km.items()}
    ceilings = {name: _checked_km(km, f"ceiling on {name!r}") for name, km in (ceiling_km or {}).items()}
    legend_in = 0.32 + 0.25 * (len(errors) // 3)
    figure = new_figure(WIDTH_IN, 4.5 + legend_in, PAPER)
    histogram = add_axes(figure, 0.85, 0.55, 5.2, 3.2)
    cumulative = add_axes(figure, 7.15, 0.55, 5.2, 3.2)
    for left, title in ((0.85, "share of images per error"), (7.15, "share of images within an error")):
        panel_title(figure, left, 0.38, title)
    for axes in (histogram, cumulative):
        plain(axes)
        _distance_axis(axes)
    decades = math.log10(FARTHEST_KM / NEAREST_KM)
    edges = np.geomspace(NEAREST_KM, FARTHEST_KM, round(decades * BINS_PER_DECADE) + 1)
    entries = []
    for number, (name, km) in enumerate(errors.items()):
        color = COLORS[number % len(COLORS)]
        share = np.histogram(km, edges)[0] / len(km) * 100
        histogram.stairs(share, edges, fill=True, color=color, alpha=0.14)
        histogram.stairs(share, edges, color=color, linewidth=1.8)
        cumulative.plot(*_cumulative(km), color=color, linewidth=2)
        label = f"{name}: {len(km):,} images, median {_km(float(np.median(km)))}"
        entries.append(Line2D([], [], color=color, linewidth=2.5, label=label))
        if name in ceilings:
            cumulative.plot(*_cumulative(ceilings[name]), color=color, linewidth=1.4, linestyle=DASHED)
    if ceilings:
        label = "the best that the gallery allows"
        entries.append(Line2D([], [], color=MUTED, linewidth=1.4, linestyle=DASHED, label=label))
    for axes in (histogram, cumulative):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g} %"))
    histogram.set_ylim(bottom=0)
    cumulative.set_ylim(0, 101)
    figure.legend(handles=entries, loc="lower center", ncols=3, fontsize=10.5, frameon=False, labelcolor=INK)
    save_figure(figure, path)


def _checked_km(km: Floats, what: str) -> NDArray[np.float64]:
    """(N,) distances, brought into the axis.

    Raises:
        DataError: nothing in it, or a value that is no distance.
    """
    km_N = np.asarray(km, dtype=np.float64).reshape(-1)
    if not len(km_N):
        raise DataError(f"{what}: there is no distance to draw")
    if not (np.isfinite(km_N) & (km_N >= 0)).all():
        raise DataError(f"{what}: a distance is not a finite, positive number of kilometres")
    return km_N.clip(NEAREST_KM, FARTHEST_KM)


def _cumulative(km_N: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances, and the percentage of images within each."""
    x = np.geomspace(NEAREST_KM, FARTHEST_KM, 800)
    return x, np.searchsorted(np.sort(km_N), x, side="right") / len(km_N) * 100


def _km(km: float) -> str:
    return f"{km:,.0f} km" if km >= 10 else f"{km:.1f} km"


def _distance_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(NEAREST_KM, FARTHEST_KM)
    ticks = (NEAREST_KM, *THRESHOLDS_KM, 20_000)
    axes.set_xticks(ticks, labels=["≤ 0.1", *(f"{km:,}" for km in THRESHOLDS_KM), "20,000"])
    axes.minorticks_off()
    axes.set_xlabel("error, km", color=MUTED, fontsize=10.5)
    for km in THRESHOLDS_KM:
        axes.axvline(km, color="#b8c2ce", linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.5)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=11)
    axes.set_yticks([])


def _thousands(value: float, _position: int) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


SIDE_IN, LEFT_IN, TOP_IN = 3.45, 0.9, 1.0


def draw_calibration(
    path: Path,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    raw_km_N: Floats,
    error_km_N: Floats,
    calibration: Calibration,
) -> None:
    """Reliability of the mass within 25 and 200 km of the guess, and observed over expected errors.

    Args:
        path: the PNG to write.
        before: `evaluation.calibration.summary` under the model's own scale.
        after: and under the fitted one.
        raw_km_N: (N,) what the softmax expected.
        error_km_N: (N,) what came true.
        calibration: the curve between the two.
    """
    figure = new_figure(WIDTH_IN, TOP_IN + SIDE_IN + 0.85, PAPER)
    name = calibration.facts["benchmark"]
    name += tta_note(calibration.facts["tta"])
    title = f"Calibrated on {name}: scale {before['scale']:.3g} → {after['scale']:.3g}"
    write(figure, LEFT_IN, 0.45, title, color=INK, fontsize=14, fontweight="bold")
    step = (WIDTH_IN - LEFT_IN - 0.3) / 3
    for number, km in enumerate(after["bins"]):
        left = LEFT_IN + number * step
        write(figure, left, TOP_IN - 0.12, f"within {km} km of the guess", color=INK, fontsize=12)
        axes = add_axes(figure, left, TOP_IN, SIDE_IN, SIDE_IN)
        plain(axes)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        for color, label, told in zip(COLORS, ("before", "after"), (before, after), strict=False):
            bins = told["bins"][km]
            axes.plot(
                [one["confidence"] for one in bins], [one["share"] for one in bins], "o-", color=color, markersize=4,
                label=f"{label}, error {told['ece'][km]:.3f}",
            )  # fmt: skip
        axes.set_xlabel("what the model says", color=INK, fontsize=10)
        axes.set_ylabel("how often it is so", color=INK, fontsize=10)
        axes.legend(loc="upper left", fontsize=9.5, frameon=False, labelcolor=INK)
    left = LEFT_IN + 2 * step
    write(figure, left, TOP_IN - 0.12, "how far off", color=INK, fontsize=12)
    axes = add_axes(figure, left, TOP_IN, SIDE_IN, SIDE_IN)
    plain(axes)
    least = 1.0
    axes.plot(raw_km_N.clip(min=least), error_km_N.clip(min=least), ".", color=MUTED, markersize=2.5, alpha=0.5)
    line_km = np.geomspace(least, max(least * 2, float(raw_km_N.max())), 200)
    axes.plot(line_km, calibration.expected_error_km(line_km).clip(min=least), color=COLORS[1], label="expected")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("what the softmax expects, km", color=INK, fontsize=10)
    axes.set_ylabel("error, km", color=INK, fontsize=10)
    axes.legend(loc="upper left", fontsize=9.5, frameon=False, labelcolor=INK)
    save_figure(figure, path)
