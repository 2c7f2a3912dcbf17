"""A run keeps paths as they were given, and can be evaluated from any folder, also after everything was moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from geoclip.cli.app import typed_beside_run
from geoclip.config import (
    CalibrateConfig,
    EvaluateConfig,
    PredictConfig,
    calibrate_problems,
    evaluate_problems,
    predict_problems,
)
from geoclip.config.composed import conf_dir
from geoclip.evaluate import evaluate
from geoclip.factory.model import model_from_checkpoint
from geoclip.predict import predict
from geoclip.runs.run_dir import checkpoint_file, first_existing, located, origins
from geoclip.training.checkpoint import read_checkpoint
from tests.fixtures.training import SMALL, train_with


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(name, list(overrides))


def trained(*overrides: str) -> Path:
    return train_with(*SMALL, "data.root=shards", "gallery.path=gallery.csv", *overrides)


def evaluated(checkpoint: Path) -> dict[str, Any]:
    overrides = (f"checkpoint={checkpoint}", "benchmark=val", "benchmark.root=shards", "device=cpu")
    config = typed_beside_run(composed("evaluate", *overrides), EvaluateConfig, evaluate_problems)
    found: dict[str, Any] = json.loads(evaluate(config).read_text())
    return found


@pytest.fixture
def project(tiny_data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, which is the current one."""
    here = tmp_path / "project"
    here.mkdir()
    for name in ("shards", "gallery.csv"):
        (tmp_path / name).rename(here / name)
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
        assert any(str(folder / "shards") in record.getMessage() for record in caplog.records)
        assert [there[key] for key in SAME] == [here[key] for key in SAME]
    overrides = (f"checkpoint={folder / run}", "benchmark=val", "benchmark.root=shards")
    typed_beside_run(composed("calibrate", *overrides), CalibrateConfig, calibrate_problems)
    of_image = (f"checkpoint={folder / run}", f"image={photo_of}", "device=cpu", "maps=0")
    written = predict(typed_beside_run(composed("predict", *of_image), PredictConfig, predict_problems))
    assert written == folder / run / "predictions" and list(written.glob("*.json"))


@pytest.fixture
def photo_of(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (20, 20), "green").save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def test_the_identity_of_a_run_does_not_depend_on_the_current_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = f"runs_dir={tmp_path}/out"
    first = trained(runs, "optim.max_steps=2")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "shards").symlink_to(project / "shards")
    (tmp_path / "elsewhere" / "gallery.csv").symlink_to(project / "gallery.csv")
    assert trained(runs, "optim.max_steps=2") == first, "already finished"
    assert evaluated(first)["n"] == 9
    (tmp_path / "sent").mkdir()
    sent = Path(checkpoint_file(str(first)).rename(tmp_path / "sent" / "best.safetensors"))
    assert model_from_checkpoint(sent)[1].gallery.path == str(project / "gallery.csv"), "a checkpoint alone"
    saved = read_checkpoint(sent)
    assert saved["config"]["data"]["root"] == "shards" and saved["cwd"] == str(project)
    assert saved["config"]["gallery"]["path"] == "gallery.csv", "as it was given"


def test_only_paths_that_exist_are_changed(tmp_path: Path) -> None:
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
