"""Curves of training, errors and calibration, and the style of all charts on white."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from geoclip.errors import DataError
from geoclip.evaluation.calibration import Calibration
from geoclip.plotting.tables import tta_note
from geoclip.plotting.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write

PAPER, INK, MUTED, GRID = "#ffffff", "#1b2733", "#5d6b7a", "#e3e8ee"
COLORS = ("#1f6fc4", "#d9480f", "#0b8a6d", "#8a3ffc", "#b5179e", "#946200")
THRESHOLDS_KM = (1, 25, 200, 750, 2500)
NEAREST_KM, FARTHEST_KM = 0.1, 20_016.0  # limits of the axis of errors; smaller errors are drawn at its left end
BINS_PER_DECADE = 8
DASHED = (0, (4, 2))
SMOOTHED_FROM = 40  # rows; fewer are not smoothed
SIDE_IN, LEFT_IN, TOP_IN = 3.45, 0.9, 1.0

Row = Mapping[str, Any]


def plain(axes: Axes, *, grid: Literal["both", "x", "y"] = "both") -> None:
    """Style axes: white, a faint grid, no tick marks, only the lower spine; with only a vertical grid, no spine."""
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


def distance_axis(axes: Axes, label: str, first_tick: str = "0.1") -> None:
    """A logarithmic axis of kilometres with ticks at the distances of the field."""
    plain(axes)
    axes.set_xscale("log")
    axes.set_xlim(NEAREST_KM, FARTHEST_KM)
    ticks = (NEAREST_KM, *THRESHOLDS_KM, 20_000)
    axes.set_xticks(ticks, labels=[first_tick, *(f"{km:,}" for km in ticks[1:])])
    axes.minorticks_off()
    axes.set_xlabel(label, color=MUTED, fontsize=10.5)


def draw_training(rows: Sequence[Row], path: Path) -> None:
    """Loss, in-batch recall, validation accuracy, learning rate, temperature and throughput over samples seen.

    Rows of metrics.jsonl of kind `train` and `val` are drawn; values that are not finite are gaps.

    Raises:
        DataError: there is no row of kind `train`.
    """
    train = [row for row in rows if row.get("kind") == "train"]
    if not train:
        raise DataError("metrics.jsonl has no row of kind 'train' yet: nothing to draw")
    samples_N = _column(train, "samples")
    panels = (
        ("loss, nats", _column(train, "loss"), COLORS[0], True),
        ("in-batch recall", _column(train, "in_batch_recall"), COLORS[2], True),
        ("validation accuracy", None, "", False),
        ("learning rate", _column(train, "lr"), COLORS[3], False),
        ("temperature", 1 / _column(train, "logit_scale"), COLORS[4], False),
        ("throughput, samples/s", _column(train, "samples_per_s"), COLORS[5], True),
    )
    width, height = 3.3, 2.05
    figure = new_figure(WIDTH_IN, 6.1, PAPER)
    for number, (title, value_N, color, smooth) in enumerate(panels):
        row, column = divmod(number, 3)
        left, top = 0.75 + column * (width + 0.8), 0.5 + row * (height + 0.85)
        panel_title(figure, left, top - 0.14, title)
        axes = add_axes(figure, left, top, width, height)
        plain(axes)
        if value_N is None:
            _validation(axes, train, rows)
        else:
            _curve(axes, samples_N, value_N, color, smooth=smooth)
        if title == "in-batch recall":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:g} %")
        elif title == "learning rate":
            axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
        axes.set_xlim(0, samples_N[-1] * 1.02 or 1)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if row == 1:
            axes.set_xlabel("samples seen", color=MUTED, fontsize=10.5)
    save_figure(figure, path)


def _column(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """(N,) the key's values; NaN where it is missing or not a finite number."""
    value_N = np.array([row.get(key) for row in rows], dtype=np.float64)
    return np.where(np.isfinite(value_N), value_N, math.nan)


def _curve(axes: Axes, x_N: Floats, y_N: Floats, color: str, *, smooth: bool) -> None:
    """Draw the values; if they are many, draw them pale under their running mean."""
    finite_N = np.isfinite(y_N)
    if not finite_N.any():
        _note(axes, "no values")
        return
    noisy = smooth and finite_N.sum() >= SMOOTHED_FROM
    marker = "o" if len(x_N) < 12 else None
    axes.plot(x_N, y_N, color=color, alpha=0.28 if noisy else 1, linewidth=1 if noisy else 1.8, marker=marker, ms=4)
    if noisy:
        window = pd.Series(y_N[finite_N]).rolling(2 * (len(x_N) // 30) + 3, center=True, min_periods=1)
        axes.plot(x_N[finite_N], window.mean(), color=color, linewidth=2)


def _validation(axes: Axes, train: Sequence[Row], rows: Sequence[Row]) -> None:
    """Accuracy within 25, 200 and 750 km on the validation split."""
    val = [row for row in rows if row.get("kind") == "val"]
    if not val:
        _note(axes, "not validated yet")
        return
    steps, seen = ([row[key] for row in train] for key in ("step", "samples"))
    x = [row["samples"] if "samples" in row else np.interp(row["step"], steps, seen) for row in val]
    for km, color in zip(("750", "200", "25"), COLORS, strict=False):
        y = _column([row["accuracy_percent"] for row in val], km)
        if np.isfinite(y).any():
            axes.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=3.5, label=f"within {km} km")
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g} %")
    axes.legend(loc="best", fontsize=9, framealpha=0.85, edgecolor=GRID)


def draw_errors(error_km: Mapping[str, Floats], ceiling_km: Mapping[str, Floats], path: Path) -> None:
    """The histogram of errors and the share of images within a distance, both on a logarithmic axis.

    By benchmark, `error_km` has (N,) errors, and `ceiling_km` those of a perfect model, drawn dashed: distances between
    the truth and the gallery's nearest location. A benchmark may have no ceiling.

    Raises:
        DataError: no benchmark, an empty one, or a distance that is negative or not finite.
    """
    if not error_km:
        raise DataError("there is no benchmark to draw errors of")
    errors = {name: _checked_km(km_N, f"errors on {name!r}") for name, km_N in error_km.items()}
    ceilings = {name: _checked_km(km_N, f"ceiling on {name!r}") for name, km_N in ceiling_km.items()}
    figure = new_figure(WIDTH_IN, 4.82 + 0.25 * (len(errors) // 3), PAPER)
    histogram, cumulative = panels = [add_axes(figure, left, 0.55, 5.2, 3.2) for left in (0.85, 7.15)]
    for axes, left, title in zip(panels, (0.85, 7.15), ("per error", "within an error"), strict=True):
        panel_title(figure, left, 0.38, f"share of images {title}")
        distance_axis(axes, "error, km", "≤ 0.1")
        for km in THRESHOLDS_KM:
            axes.axvline(km, color="#b8c2ce", linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.5)
        axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g} %")
    edges = np.geomspace(NEAREST_KM, FARTHEST_KM, round(math.log10(FARTHEST_KM / NEAREST_KM) * BINS_PER_DECADE) + 1)
    entries = []
    for number, (name, km_N) in enumerate(errors.items()):
        color = COLORS[number % len(COLORS)]
        share = np.histogram(km_N, edges)[0] / len(km_N) * 100
        histogram.stairs(share, edges, fill=True, color=color, alpha=0.14)
        histogram.stairs(share, edges, color=color, linewidth=1.8)
        cumulative.plot(*_cumulative(km_N), color=color, linewidth=2)
        median_km = float(np.median(km_N))
        label = f"{name}: {len(km_N):,} images, median {median_km:,.{0 if median_km >= 10 else 1}f} km"
        entries.append(Line2D([], [], color=color, linewidth=2.5, label=label))
        if name in ceilings:
            cumulative.plot(*_cumulative(ceilings[name]), color=color, linewidth=1.4, linestyle=DASHED)
    if ceilings:
        entries.append(Line2D([], [], color=MUTED, linewidth=1.4, linestyle=DASHED, label="ceiling of the gallery"))
    histogram.set_ylim(bottom=0)
    cumulative.set_ylim(0, 101)
    figure.legend(handles=entries, loc="lower center", ncols=3, fontsize=10.5, frameon=False, labelcolor=INK)
    save_figure(figure, path)


def _checked_km(km_N: Floats, what: str) -> NDArray[np.float64]:
    """(N,) distances, clipped to the axis. Raises DataError: there is none, or a negative one."""
    if not len(km_N):
        raise DataError(f"{what}: there is no distance to draw")
    if not (np.isfinite(km_N) & (km_N >= 0)).all():
        raise DataError(f"{what}: a distance is negative or not a finite number of kilometres")
    return np.asarray(km_N, dtype=np.float64).clip(NEAREST_KM, FARTHEST_KM)


def _cumulative(km_N: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances, and the percentage of images within each."""
    x = np.geomspace(NEAREST_KM, FARTHEST_KM, 800)
    return x, np.searchsorted(np.sort(km_N), x, side="right") / len(km_N) * 100


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=11)
    axes.set_yticks([])


def draw_calibration(
    path: Path,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    raw_km_N: Floats,
    error_km_N: Floats,
    calibration: Calibration,
) -> None:
    """Reliability of the probability within 25 and 200 km of the prediction, and observed over expected errors.

    `before` and `after` are `evaluation.calibration.summary` with the model's own scale and the fitted one; `raw_km_N`
    are the expected errors of the softmax, which `calibration` maps to the observed `error_km_N`.
    """
    figure = new_figure(WIDTH_IN, TOP_IN + SIDE_IN + 0.85, PAPER)
    name = calibration.facts["benchmark"] + tta_note(calibration.facts["tta"])
    title = f"Calibrated on {name}: scale {before['scale']:.3g} → {after['scale']:.3g}"
    write(figure, LEFT_IN, 0.45, title, color=INK, fontsize=14, fontweight="bold")

    def panel(number: int, title: str, x_label: str, y_label: str) -> Axes:
        left = LEFT_IN + number * (WIDTH_IN - LEFT_IN - 0.3) / 3
        write(figure, left, TOP_IN - 0.12, title, color=INK, fontsize=12)
        axes = add_axes(figure, left, TOP_IN, SIDE_IN, SIDE_IN)
        plain(axes)
        axes.set_xlabel(x_label, color=INK, fontsize=10)
        axes.set_ylabel(y_label, color=INK, fontsize=10)
        return axes

    for number, km in enumerate(after["bins"]):
        axes = panel(number, f"within {km} km of the prediction", "predicted probability", "share of images")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        for color, when, summary in zip(COLORS, ("before", "after"), (before, after), strict=False):
            x, y = ([one[key] for one in summary["bins"][km]] for key in ("confidence", "share"))
            axes.plot(x, y, "o-", color=color, markersize=4, label=f"{when}, ECE {summary['ece'][km]:.3f}")
        axes.legend(loc="upper left", fontsize=9.5, frameon=False, labelcolor=INK)
    axes = panel(2, "size of the error", "expected error of the softmax, km", "error, km")
    least_km = 1.0
    axes.plot(raw_km_N.clip(least_km), error_km_N.clip(least_km), ".", color=MUTED, markersize=2.5, alpha=0.5)
    line_km = np.geomspace(least_km, max(2 * least_km, float(raw_km_N.max())), 200)
    axes.plot(line_km, calibration.expected_error_km(line_km).clip(least_km), color=COLORS[1], label="calibrated")
    axes.loglog()
    axes.legend(loc="upper left", fontsize=9.5, frameon=False, labelcolor=INK)
    save_figure(figure, path)
