"""Curves are drawn from few rows as from many, and from what is no number they are not drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoclip.errors import DataError
from geoclip.plotting.curves import draw_errors, draw_training

SIDES = {"training": (1600, 762), "errors": (1600, 602)}


def rows(count: int, *, validated: bool = True) -> list[dict[str, Any]]:
    train = [
        {
            "kind": "train",
            "step": 20 * number,
            "samples": 20 * 512 * number,
            "loss": 7.0 / number,
            "in_batch_recall": 0.1,
            "lr": 1e-3,
            "logit_scale": 14.3,
            "samples_per_s": 900.0,
        }
        for number in range(1, count + 1)
    ]
    val = {"kind": "val", "step": 20, "accuracy_percent": {"1": 0.5, "25": 9.0, "200": 40.0, "750": 60.0}}
    return [*train, val, {"kind": "skipped", "step": 20, "total": 0}] if validated else train


def colors_in(path: Path) -> int:
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(maxcolors=2**24)
        assert found is not None
        return len(found)


@pytest.mark.parametrize(("count", "validated"), [(1, False), (60, True)])
def test_training_is_drawn_however_far_it_came(tmp_path: Path, count: int, validated: bool) -> None:
    draw_training(rows(count, validated=validated), tmp_path / "figures" / "training.png")
    with Image.open(tmp_path / "figures" / "training.png") as image:
        assert image.size == pytest.approx(SIDES["training"], abs=1)
    assert colors_in(tmp_path / "figures" / "training.png") > 50


def test_a_loss_that_exploded_is_a_gap_and_not_an_error(tmp_path: Path) -> None:
    written = [json.loads(json.dumps(row)) for row in rows(5)]
    written[2]["loss"], written[3]["loss"] = float("nan"), float("inf")
    for row in written:
        row["samples_per_s"] = float("nan")
    draw_training(written, tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of kind 'train'"):
        draw_training([{"kind": "val", "step": 1}], tmp_path / "training.png")


def test_errors_are_drawn_from_a_hit_to_the_antipodes(tmp_path: Path) -> None:
    error_km = np.array([0.0, 1e-9, 1.0, 25.0, 2500.0, 20_015.1])
    draw_errors({"test": error_km}, None, tmp_path / "plain.png")
    draw_errors({"test": error_km}, {"test": error_km / 3}, tmp_path / "ceiling.png")
    with Image.open(tmp_path / "plain.png") as image:
        assert image.size == pytest.approx(SIDES["errors"], abs=1)
    contents = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert contents["plain.png"] != contents["ceiling.png"]


@pytest.mark.parametrize(
    ("error_km", "words"),
    [
        ({}, "no benchmark"),
        ({"test": np.array([])}, "errors on 'test': there is no distance"),
        ({"test": np.array([1.0, np.nan])}, "errors on 'test': a distance is not a finite"),
        ({"test": np.array([-1.0])}, "not a finite, positive"),
    ],
)
def test_what_is_no_distance_is_refused(
    tmp_path: Path, error_km: dict[str, np.ndarray[Any, np.dtype[np.float64]]], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        draw_errors(error_km, None, tmp_path / "errors.png")
