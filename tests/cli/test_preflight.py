"""Problems of a run, and of every point of a sweep, are found before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from geoclip.cli.preflight import Findings, Preflight, folder_problem
from geoclip.cli.sweep import Point, look_at_points
from geoclip.config import ConfigError, TrainConfig, train_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.train import check
from geoclip.training.checkpoint import pack, write_checkpoint

SMALL = (
    *("data=mp16", "encoder=resnet_tiny", "gallery=csv", "optim.batch_size=4", "optim.epochs=2", "queue.size=8"),
    *("data.streams=2", "compute=local", "compute.device=cpu", "compute.workers=0", "logger.mode=disabled"),
)


@pytest.fixture
def settings(tiny_shards: Callable[..., Any], tmp_path: Path) -> tuple[str, ...]:
    """Overrides of a run that can train, on shards of 16 pixels."""
    root = tiny_shards([6, 4]).root
    tiny_shards([5], split="val")
    (tmp_path / "gallery.csv").write_text("LAT,LON\n1,2\n3,4\n")
    return (*SMALL, f"data.root={root}", f"gallery.path={tmp_path}/gallery.csv", f"runs_dir={tmp_path}/runs")


def config_of(*overrides: str) -> TrainConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("train", list(overrides)), TrainConfig, lambda _: [])


def look(*overrides: str, here: bool = True) -> Findings:
    return Preflight().look_at(config_of(*overrides), here=here)


def test_a_valid_run_is_described(settings: tuple[str, ...], tmp_path: Path) -> None:
    found = look(*settings)
    assert not found.problems and not found.notes and not found.finished
    assert (found.samples, found.validation, found.gallery, found.steps) == (10, 5, 2, 5)
    assert 0 < found.trained <= found.parameters and found.device == "cpu"
    assert found.run is not None and found.run.parent == tmp_path / "runs" and not found.run.exists()
    shown = "\n".join(found.lines())
    assert str(found.run) in shown and f"{found.parameters:,}" in shown and "steps: 5" in shown


def test_the_parameters_are_those_of_the_model(settings: tuple[str, ...]) -> None:
    from geoclip.factory.model import build_model

    for more in ((), ("loss=sigmoid",), ("loss.learn_temperature=false",)):
        model, found = build_model(config_of(*settings, *more)), look(*settings, *more)
        assert found.trained == sum(one.numel() for one in model.parameters() if one.requires_grad)
        assert found.parameters == sum(one.numel() for one in model.parameters())


def invalid_overrides(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """By the kind of mistake: the override, and a word of the problem."""
    (tmp_path / "empty.csv").write_text("LAT,LON\n")
    (tmp_path / "text.csv").write_text("LAT,LON\nnorth,east\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "features").mkdir(exist_ok=True)
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    (tmp_path / "none").mkdir(exist_ok=True)
    write_checkpoint(
        tmp_path / "other.safetensors",
        pack({"format": 1, "config": {"queue": {"size": 99}, "data": {}, "encoder": {"features": ""}}, "files": {}}),
    )
    return {
        "an empty gallery": (f"gallery.path={tmp_path}/empty.csv", "empty.csv"),
        "a gallery of words": (f"gallery.path={tmp_path}/text.csv", "text.csv"),
        "no training split": ("data.train=nothing", "nothing"),
        "no validation split": ("data.val=nothing", "nothing"),
        "a batch larger than the data": ("optim.batch_size=1000", "optim.batch_size=1000"),
        "features of something else": (f"encoder.features={tmp_path}/features", "features"),
        "a start that is not a run": (f"location.init={tmp_path}/none", "none"),
        "a corrupt start": (f"location.init={tmp_path}/bad.safetensors", "bad.safetensors"),
        "a corrupt checkpoint": (f"resume={tmp_path}/bad.safetensors", "bad.safetensors"),
        "a checkpoint of another run": (f"resume={tmp_path}/other.safetensors", "other.safetensors"),
        "weights that do not exist": ("encoder=clip_vit_l14", "openai/clip-vit-large-patch14"),
        "a file for a folder": (f"runs_dir={tmp_path}/file/runs", "file"),
        "more than any memory": ("location.hidden_dim=100000000", "memory"),
        "no such device": ("compute.device=cuda:99", "cuda:99"),
        "other views on disk": (f"data=bluemarble data.root={tmp_path}", str(tmp_path)),
    }


KINDS = [
    "an empty gallery", "a gallery of words", "no training split", "no validation split",
    "a batch larger than the data", "features of something else", "a start that is not a run", "a corrupt start",
    "a corrupt checkpoint", "a checkpoint of another run", "weights that do not exist", "a file for a folder",
    "more than any memory", "no such device", "other views on disk",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_second_point_is_found_before_the_first_trains(
    settings: tuple[str, ...], tmp_path: Path, kind: str
) -> None:
    override, name = invalid_overrides(tmp_path)[kind]
    points = [
        Point(overrides=("seed=0",), config=config_of(*settings)),
        Point(overrides=tuple(override.split()), config=config_of(*settings, *override.split())),
    ]
    with pytest.raises(ConfigError) as refused:
        look_at_points(points, [False, False], here=True)
    assert all(problem.startswith(override) for problem in refused.value.problems)
    assert any(name in problem.removeprefix(override) for problem in refused.value.problems)
    assert look_at_points(points, [False, True], here=True)[1] is None  # finished points are not checked


def test_points_that_share_a_run_are_refused(settings: tuple[str, ...]) -> None:
    """Only the first would train, and the sweep would report two."""
    varied = ("compute.precision=float32", "compute.precision=tf32")
    points = [Point(overrides=(one,), config=config_of(*settings, one)) for one in varied]
    with pytest.raises(ConfigError) as refused:
        look_at_points(points, [False, False], here=True)
    (problem,) = refused.value.problems
    assert all(one in problem for one in varied) and "name=" in problem


def test_cached_features_must_be_named(settings: tuple[str, ...]) -> None:
    problems = train_problems(config_of(*settings, "encoder=cached"), 1)
    assert any("encoder.features=FOLDER" in problem for problem in problems)


def test_a_missing_device_is_a_problem_unless_the_run_trains_elsewhere(settings: tuple[str, ...]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    found = look(*settings, "compute.device=cuda", here=False)
    assert not found.problems and "CUDA" in "\n".join(found.lines())
    with pytest.raises(ConfigError, match=r"compute\.device=auto"):
        check(config_of(*settings, "compute.device=cuda"))
    assert not look(*settings, "compute.device=auto").problems


def test_views_that_are_not_built_yet_are_a_note(tmp_path: Path) -> None:
    found = look(f"data.root={tmp_path}/views", f"gallery.path={tmp_path}/views/gallery.csv", f"runs_dir={tmp_path}")
    assert not found.problems and f"geoclip.shards root={tmp_path}/views" in "\n".join(found.notes)


def test_features_are_checked_before_their_views_are_built(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    paths = (f"data.root={tmp_path}/views", f"gallery.path={tmp_path}/views/gallery.csv", f"runs_dir={tmp_path}")
    (problem,) = look(*paths, "encoder=cached", f"encoder.features={tmp_path}/features").problems
    assert f"{tmp_path}/features" in problem and "geoclip.features" in problem


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not folder_problem(tmp_path / "a" / "b")
    assert str(tmp_path / "file") in folder_problem(tmp_path / "file" / "b")


def test_the_check_ends_with_ok(settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    check(config_of(*settings))
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "OK" and "/runs/" in printed
    with pytest.raises(ConfigError, match="nothing"):
        check(config_of(*settings, "data.val=nothing"))
    assert "OK" not in capsys.readouterr().out
