"""Curves of training and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoclip.errors import DataError
from geoclip.evaluation.calibration import Calibration
from geoclip.plotting.curves import _column, draw_calibration, draw_errors, draw_training


def rows(count: int, *, validated: bool = True) -> list[dict[str, Any]]:
    shared = {"kind": "train", "in_batch_recall": 0.1, "lr": 1e-3, "logit_scale": 14.3, "samples_per_s": 900.0}
    train = [{**shared, "step": 20 * n, "samples": 10_240 * n, "loss": 7.0 / n} for n in range(1, count + 1)]
    val = {"kind": "val", "step": 20, "accuracy_percent": {"1": 0.5, "25": 9.0, "200": 40.0, "750": 60.0}}
    return [*train, val, {"kind": "skipped", "step": 20, "total": 0}] if validated else train


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        colors = image.convert("RGB").getcolors(maxcolors=2**24)
        assert colors is not None and len(colors) > 50, "something is drawn"
        return image.size


@pytest.mark.parametrize(("count", "validated"), [(1, False), (60, True)])
def test_training_is_drawn_from_one_row_and_from_many(tmp_path: Path, count: int, validated: bool) -> None:
    path = tmp_path / "figures" / "training.png"
    draw_training(rows(count, validated=validated), path)
    assert size(path) == pytest.approx((1600, 762), abs=1)


def test_values_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    written = rows(5)
    written[2]["loss"], written[3]["loss"] = float("nan"), float("inf")
    del written[1]["loss"]
    for row in written:
        row["samples_per_s"] = float("nan")
    assert np.isfinite(_column(written[:5], "loss")).tolist() == [True, False, False, False, True]
    draw_training(written, tmp_path / "training.png")
    assert size(tmp_path / "training.png")


def test_training_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'train'"):
        draw_training([{"kind": "val", "step": 1}], tmp_path / "training.png")


def test_errors_are_drawn_from_zero_to_the_antipodes(tmp_path: Path) -> None:
    error_km = np.array([0.0, 1e-9, 1.0, 25.0, 2500.0, 20_015.1])
    draw_errors({"test": error_km}, {}, tmp_path / "plain.png")
    draw_errors({"test": error_km}, {"test": error_km / 3}, tmp_path / "ceiling.png")
    assert size(tmp_path / "plain.png") == pytest.approx((1600, 602), abs=1)
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "ceiling.png").read_bytes()


@pytest.mark.parametrize("error_km", [None, [], [1.0, np.nan], [-1.0]])
def test_errors_that_are_not_distances_are_refused(tmp_path: Path, error_km: list[float] | None) -> None:
    errors = {} if error_km is None else {"split": np.array(error_km)}
    with pytest.raises(DataError, match="'split'" if errors else "benchmark"):
        draw_errors(errors, {}, tmp_path / "errors.png")


def test_calibration_is_drawn_for_errors_of_zero_too(tmp_path: Path) -> None:
    bins = [{"confidence": share, "share": share} for share in (0.1, 0.9)]
    summary = {"scale": 20.0, "bins": {"25": bins, "200": bins}, "ece": {"25": 0.1, "200": 0.05}}
    facts = {"benchmark": "val", "tta": "single"}
    calibration = Calibration(scale=20.0, raw_km=(1.0, 5000.0), error_km=(2.0, 4000.0), facts=facts)
    error_km = np.array([0.0, 10.0, 3000.0])
    draw_calibration(tmp_path / "calibration.png", summary, summary, error_km, error_km, calibration)
    assert size(tmp_path / "calibration.png")[0] == 1600
