"""Runs of other losses and location encoders, end to end: trained, read back, gone on from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from geoclip.config import TrainConfig, train_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.errors import GeoclipError
from geoclip.factory.model import model_from_checkpoint
from geoclip.runs.metrics import read_rows
from geoclip.runs.run_dir import checkpoint_file
from geoclip.train import train_run

SMALL = (
    *("location.hidden_dim=16", "location.embedding_dim=8", "encoder.hidden_dim=8", "encoder.image_px=16"),
    *("encoder.stem_dim=8", "encoder.widths=[8,8]", "encoder.depths=[1,1]", "encoder.feature_dim=8"),
    *("data.streams=4", "optim.batch_size=8", "optim.max_steps=4", "queue.size=16", "compute.workers=0"),
    *("logger=jsonl", "gallery=csv", "data=mp16"),
)


@pytest.fixture
def run(tiny_shards: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Trains with these overrides; returns the run's folder."""
    shards = tiny_shards([20, 20])
    tiny_shards([9], split="val")
    rows = "\n".join(f"{lat},{lon}" for lat, lon in shards.gps_deg.values())
    (tmp_path / "gallery.csv").write_text(f"LAT,LON\n{rows}\n")
    files = (f"data.root={shards.root}", f"gallery.path={tmp_path}/gallery.csv", f"runs_dir={tmp_path}/runs")

    def train(*overrides: str) -> Path:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", [*SMALL, *files, *overrides])
        return train_run(typed(cfg, TrainConfig, lambda found: train_problems(found, 1)))

    return train


def test_a_sigmoid_run_keeps_its_bias(run: Callable[..., Path]) -> None:
    folder = run("loss=sigmoid", "location=sphere2vec", "location.embedding_dim=8")
    model, _ = model_from_checkpoint(checkpoint_file(str(folder)))
    assert model.logit_bias is not None and model.logit_bias.item() != -10
    assert model.encode_location(torch.zeros(1, 2)).shape == (1, 8)


def test_both_directions_several_views_hard_negatives_and_harmonics_at_once(run: Callable[..., Path]) -> None:
    folder = run(
        *("loss=symmetric", "loss.views=2", "loss.hard_negatives=1", "loss.near=soften"),
        *("location=spherical_harmonics", "location.degree=4", "location.embedding_dim=8"),
    )
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["train", "val", "skipped"]
    assert rows[0]["samples"] == 32, "a picture in two views is one sample"
    model_from_checkpoint(checkpoint_file(str(folder)))


def test_a_run_starts_from_the_scales_of_another_which_may_then_go(run: Callable[..., Path]) -> None:
    coarse = run("location.sigmas=[1,16]")
    finer = ("location.sigmas=[1,16,4096]", f"location.init={coarse}", "location.freeze_init=true")
    fine = run(*finer)
    first, _ = model_from_checkpoint(checkpoint_file(str(coarse)))
    (coarse / "checkpoints").rename(coarse / "gone")
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
def test_samples_without_a_negative_are_not_trained_on(
    run: Callable[..., Path], overrides: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(GeoclipError, match=re.escape(named)):
        run(*overrides.split())
    assert not (tmp_path / "runs").exists()


def test_a_gallery_of_one_location_is_no_gallery(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("LAT,LON\n1,2\n1.0,2.0\n")
    with pytest.raises(GeoclipError, match=r"gallery\.path=.*one\.csv"):
        run(f"gallery.path={tmp_path}/one.csv")


def test_fewer_samples_than_a_batch_are_named(run: Callable[..., Path]) -> None:
    with pytest.raises(GeoclipError, match=r"optim\.batch_size=64 is more than the 40 samples"):
        run("optim.batch_size=64", "optim.epochs=1")


def test_validation_counts_by_the_runs_protocol(run: Callable[..., Path]) -> None:
    medians = []
    for protocol in ("sphere", "released"):
        rows = read_rows(run(f"protocol={protocol}", f"name={protocol}") / "metrics.jsonl")
        medians.append(next(row["median_km"] for row in rows if row["kind"] == "val"))
    assert 0 < abs(medians[0] / medians[1] - 1) < 0.006
