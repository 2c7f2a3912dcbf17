"""Complete runs with other losses and location encoders."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from geoclip.errors import GeoclipError
from geoclip.factory.model import model_from_checkpoint
from geoclip.runs.metrics import read_rows
from geoclip.runs.run_dir import checkpoint_file
from tests.fixtures.training import SMALL, train_with


@pytest.fixture
def run(tiny_data: tuple[str, ...]) -> Callable[..., Path]:
    """`run(*overrides)` trains; returns the run's folder."""
    return partial(train_with, *SMALL, *tiny_data)


def test_a_sigmoid_run_keeps_its_bias(run: Callable[..., Path]) -> None:
    folder = run("loss=sigmoid", "location=sphere2vec", "location.embedding_dim=8")
    model, _ = model_from_checkpoint(checkpoint_file(str(folder)))
    assert model.logit_bias is not None and model.logit_bias.item() != -10
    assert model.encode_location(torch.zeros(1, 2)).shape == (1, 8)


def test_symmetric_views_hard_negatives_and_harmonics_together(run: Callable[..., Path]) -> None:
    folder = run(
        *("loss=symmetric", "loss.views=2", "loss.hard_negatives=1", "loss.near=soften"),
        *("location=spherical_harmonics", "location.degree=4", "location.embedding_dim=8"),
    )
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["train", "val", "skipped"]
    assert rows[0]["samples"] == 32, "a picture in two views is one sample"
    model_from_checkpoint(checkpoint_file(str(folder)))


def test_a_run_starts_from_the_scales_of_another_and_does_not_need_it_later(run: Callable[..., Path]) -> None:
    coarse = run("location.sigmas=[1,16]")
    finer = ("location.sigmas=[1,16,4096]", f"location.init={coarse}", "location.freeze_init=true")
    fine = run(*finer)
    first, _ = model_from_checkpoint(checkpoint_file(str(coarse)))
    (coarse / "checkpoints").rename(coarse / "moved")
    second, _ = model_from_checkpoint(checkpoint_file(str(fine)))
    old, new = first.location_encoder.state_dict(), second.location_encoder.state_dict()
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    assert new["branches.2.head.weight"].abs().max() > 0


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ("data.fraction=0.025 optim.batch_size=1 data.streams=1 optim.epochs=4", "data.fraction=0.025"),
        ("loss.near=mask loss.near_radius_km=20010", "loss.near_radius_km=20010"),
    ],
)
def test_samples_without_a_negative_are_refused(
    run: Callable[..., Path], overrides: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(GeoclipError, match=re.escape(named)):
        run(*overrides.split())
    assert not (tmp_path / "runs").exists()


def test_a_gallery_of_one_location_is_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("LAT,LON\n1,2\n1.0,2.0\n")
    with pytest.raises(GeoclipError, match=r"gallery\.path=.*one\.csv"):
        run(f"gallery.path={tmp_path}/one.csv")


def test_fewer_samples_than_a_batch_are_refused(run: Callable[..., Path]) -> None:
    with pytest.raises(GeoclipError, match=r"optim\.batch_size=64 .* 40 "):
        run("optim.batch_size=64", "optim.epochs=1")


def test_validation_uses_the_protocol_of_the_run(run: Callable[..., Path]) -> None:
    medians = []
    for protocol in ("sphere", "released"):
        rows = read_rows(run(f"protocol={protocol}", f"name={protocol}") / "metrics.jsonl")
        medians.append(next(row["median_km"] for row in rows if row["kind"] == "val"))
    assert 0 < abs(medians[0] / medians[1] - 1) < 0.006
