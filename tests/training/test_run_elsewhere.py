"""A run keeps paths as they were given, and is evaluated from any folder, also after all of it has moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from geoclip.cli.app import typed_beside_run
from geoclip.config import (
    CalibrateConfig,
    EvaluateConfig,
    PredictConfig,
    TrainConfig,
    calibrate_problems,
    evaluate_problems,
    predict_problems,
    train_problems,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.evaluate import evaluate
from geoclip.factory.model import model_from_checkpoint
from geoclip.predict import predict
from geoclip.runs.run_dir import checkpoint_file, first_existing, located, origins
from geoclip.train import train_run
from geoclip.training.checkpoint import read_checkpoint
from tests.training.test_variant_runs import SMALL

RELATIVE = ("data.root=shards", "gallery.path=gallery.csv", "benchmark.root=shards")


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(name, list(overrides))


def trained(*overrides: str) -> Path:
    cfg = composed("train", *SMALL, *RELATIVE[:2], *overrides)
    return train_run(typed(cfg, TrainConfig, lambda found: train_problems(found, 1)))


def evaluated(checkpoint: Path) -> dict[str, Any]:
    asked = (f"checkpoint={checkpoint}", "benchmark=val", "benchmark.root=shards", "device=cpu")
    config = typed_beside_run(composed("evaluate", *asked), EvaluateConfig, evaluate_problems)
    found: dict[str, Any] = json.loads(evaluate(config).read_text())
    return found


@pytest.fixture
def project(tiny_shards: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that runs are started in, with its data."""
    shards = tiny_shards([20, 20])
    tiny_shards([9], split="val")
    here = tmp_path / "project"
    here.mkdir()
    shards.root.rename(here / "shards")
    rows = "\n".join(f"{lat},{lon}" for lat, lon in shards.gps_deg.values())
    (here / "gallery.csv").write_text(f"LAT,LON\n{rows}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("GEOCLIP_CACHE", str(tmp_path / "cache"))
    return here


SAME = ("gallery_sha256", "accuracy_percent", "median_km", "evaluation", "training_locations", "checkpoint_sha256")


def test_a_run_is_used_from_another_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, photo_of: Path
) -> None:
    run = trained("name=head", "encoder.tune=frozen", f"encoder.repo={trained('name=backbone')}")
    assert not run.is_absolute()
    here = evaluated(run)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (project, tmp_path / "renamed"):
        if folder != project:
            project.rename(folder)
        caplog.clear()
        there = evaluated(folder / run)
        assert any(str(folder / "shards") in record.getMessage() for record in caplog.records), "where it was"
        assert [there[key] for key in SAME] == [here[key] for key in SAME]
    asked = (f"checkpoint={folder / run}", "benchmark=val", "benchmark.root=shards")
    typed_beside_run(composed("calibrate", *asked), CalibrateConfig, calibrate_problems)
    pictured = (f"checkpoint={folder / run}", f"image={photo_of}", "device=cpu", "maps=0")
    answers = predict(typed_beside_run(composed("predict", *pictured), PredictConfig, predict_problems))
    assert answers == folder / run / "predictions" and list(answers.glob("*.json"))


@pytest.fixture
def photo_of(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (20, 20), "green").save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def test_what_a_run_is_does_not_depend_on_the_folder_it_was_started_in(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = f"runs_dir={tmp_path}/out"
    first = trained(runs, "optim.max_steps=2")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "shards").symlink_to(project / "shards")
    (tmp_path / "elsewhere" / "gallery.csv").symlink_to(project / "gallery.csv")
    assert trained(runs, "optim.max_steps=2") == first, "it is already finished"
    assert evaluated(first)["n"] == 9
    (tmp_path / "sent").mkdir()
    sent = Path(checkpoint_file(str(first)).rename(tmp_path / "sent" / "best.safetensors"))
    assert model_from_checkpoint(sent)[1].gallery.path == str(project / "gallery.csv"), "a checkpoint alone"
    saved = read_checkpoint(sent)
    assert saved["config"]["data"]["root"] == "shards" and saved["cwd"] == str(project)
    assert saved["config"]["gallery"]["path"] == "gallery.csv", "as it was given"


def test_only_paths_that_lead_somewhere_are_changed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run = tmp_path / "runs" / "a-1"
    config = {
        "runs_dir": "runs",
        "data": {"root": "data", "train": "train"},
        "encoder": {"repo": "openai/clip-vit-large-patch14", "features": ""},
        "gallery": {"path": "/gone/gallery.csv"},
        "study": {"galleries": ["data", "gone.csv"]},
    }
    found = located(config, run)
    assert found["data"] == {"root": str(tmp_path / "data"), "train": "train"}
    assert (found["encoder"], found["gallery"]) == (config["encoder"], config["gallery"])
    assert found["study"]["galleries"] == [str(tmp_path / "data"), "gone.csv"]
    assert origins(run, config)[0] == tmp_path and config["data"] == {"root": "data", "train": "train"}
    assert first_existing("s3://bucket/data", [tmp_path]) == "s3://bucket/data"
