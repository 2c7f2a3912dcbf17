"""Agreement with the released code on the released weights, measured by `bench.parity`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from geoclip import load
from tests.model.released import tiny_released_geoclip, write_tiny_clip

pytestmark = pytest.mark.slow
PLACES = 100_000  # all of the released gallery


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    return importlib.import_module("bench.parity")


@pytest.fixture(scope="module")
def found(parity: ModuleType) -> Any:
    return parity.measure(queries=200, places=PLACES)


def test_every_location_of_the_gallery_has_the_released_embedding(found: dict[str, Any]) -> None:
    assert found["places"] == PLACES
    assert found["location_embedding_difference"] < 1e-5 * found["largest_location_embedding"] < 1e-5


def test_image_mlp_and_logit_scale_are_the_released_ones(found: dict[str, Any]) -> None:
    assert found["image_embedding_difference"] < 1e-5
    assert found["logit_scale_difference"] == 0


def test_pictures_have_the_released_logits(found: dict[str, Any]) -> None:
    assert found["picture_logit_difference"] < 1e-4


def test_queries_retrieve_the_same_five_locations_with_the_same_probabilities(found: dict[str, Any]) -> None:
    assert found["same_top_5"] == found["queries"] == 200
    assert found["probability_difference"] < 5e-5
    least, *_, most = found["best_probability_quartiles"]
    assert least < 0.05 < 0.5 < most


def test_another_model_differs(parity: ModuleType, tmp_path: Path) -> None:
    clip = write_tiny_clip(tmp_path)
    ours = load("official", backbone=str(clip))
    theirs = tiny_released_geoclip(clip).eval()
    gps_deg = torch.tensor([[10.0, 20.0], [-30.0, 40.0]])
    assert parity.compare_pictures(ours, theirs, gps_deg) < 1e-4
    with torch.no_grad():
        theirs.location_encoder.LocEnc2.head[0].bias += 1e-3
    assert parity.compare_pictures(ours, theirs, gps_deg) > 1e-4
    theirs.image_encoder.CLIP = parity.AsGiven()
    assert parity.compare_places(ours, theirs, gps_deg, torch.zeros(1, 768))[0][
        "location_embedding_difference"
    ] == pytest.approx(1e-3, rel=0.1)
