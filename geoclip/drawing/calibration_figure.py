"""A calibration: as often right as it says, before and after, and the error that is to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geoclip.drawing.charts import COLORS, INK, MUTED, PAPER, plain
from geoclip.drawing.tables import tta_note
from geoclip.drawing.world import WIDTH_IN, Floats, add_axes, new_figure, save_figure, write
from geoclip.evaluation.calibration import Calibration

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
