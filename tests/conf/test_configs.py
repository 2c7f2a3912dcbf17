"""Every experiment and benchmark composes; every mistake is named before anything is built."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from geoclip.checks import evaluate_problems, predict_problems, shards_problems, train_problems
from geoclip.conf_dir import conf_dir
from geoclip.config import DataKind, EvaluateConfig, PredictConfig, ShardsConfig, TrainConfig, typed


def train_config(*overrides: str) -> TrainConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("train", list(overrides)), TrainConfig, lambda _: [])


@pytest.mark.parametrize(
    "path", sorted(Path(conf_dir(), "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_experiment_composes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backbone", "bluemarble"):  # as make study-features leaves them
        (tmp_path / "features" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = train_config(f"+experiment={path.stem}")
    if config.data.kind is DataKind.bluemarble:
        assert train_problems(config, 1) == []
        return
    config = train_config(f"+experiment={path.stem}", f"data.root={tmp_path}", "compute=gpu")
    assert all(train_problems(config, world_size) == [] for world_size in (1, 8))


@pytest.mark.parametrize(
    "path", sorted(Path(conf_dir(), "benchmark").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_benchmark_composes(path: Path, tmp_path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("evaluate", [f"benchmark={path.stem}", f"benchmark.root={tmp_path}"])
    assert typed(cfg, EvaluateConfig, evaluate_problems).benchmark.name == path.stem


def test_the_other_entry_points_compose(tmp_path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        assert typed(compose("shards"), ShardsConfig, shards_problems).root == "data/bluemarble"
        config = typed(compose("predict", [f"image={tmp_path}"]), PredictConfig, predict_problems)
    assert (config.top_k, config.checkpoint) == (5, "latest")


@pytest.mark.parametrize("entry_point", ["evaluate", "calibrate", "compare"])
def test_a_benchmark_is_chosen_by_its_name_everywhere(entry_point: str) -> None:
    """benchmark is a group of conf/: a key of that name and another kind could not be given on the command line."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        assert compose(entry_point, ["benchmark=test_unseen_cells"]).benchmark.name == "test_unseen_cells"


def test_every_config_says_how_it_is_used() -> None:
    """With a command that chooses it: tests/house/test_documents.py tries these."""
    for path in Path(conf_dir()).rglob("*.yaml"):
        head = path.read_text().splitlines()[:2]
        assert any(line.startswith("#") for line in head), path
        *groups, name = path.relative_to(conf_dir()).with_suffix("").parts
        if name == "entry_point":
            continue
        chosen = (
            f"{'/'.join(groups).replace('experiment', '+experiment')}={name}"
            if groups
            else f" geoclip.{name}"
        )
        assert "-m geoclip." in "".join(head) and chosen in "".join(head), f"{path} does not show {chosen}"


def test_the_paper_set_up_is_the_paper_set_up(tmp_path: Path) -> None:
    config = train_config("+experiment=full_mp16", f"data.root={tmp_path}")
    assert config.encoder.repo == "openai/clip-vit-large-patch14" and config.encoder.frozen
    assert config.location.sigmas == [2**0, 2**4, 2**8]
    assert (config.queue.size, config.optim.batch_size) == (4096, 512)
    assert (config.queue.batch_noise_m, config.queue.queue_noise_m) == (150, 1000)
    assert (config.location.frequencies, config.location.hidden_dim, config.location.embedding_dim) == (
        256,
        1024,
        512,
    )


PROBLEMS: list[tuple[list[str], str]] = [
    (["queue.size=-1"], "queue.size=-1 must be 0 or more"),
    (
        ["compute.accumulation=3"],
        "optim.batch_size=256 does not divide over 1 ranks and compute.accumulation=3 parts",
    ),
    (["compute.max_minutes=0"], "compute.max_minutes=0.0 must be positive, or null for no limit"),
    (["compute.timeout_minutes=0"], "compute.timeout_minutes=0.0 must be positive"),
    (["compute.keep_checkpoints=0"], "compute.keep_checkpoints=0 must be 1 or more"),
    (["resume=nowhere"], "resume=nowhere is neither auto nor never, nor a run's folder"),
    (["optim.ema_decay=1"], "optim.ema_decay=1.0 must lie in [0, 1)"),
    (["optim.encoder_lr=-1"], "optim.encoder_lr=-1.0 must be positive, or null"),
    (["encoder.tune=lora"], "encoder=resnet_tiny has no attention: encoder.tune=lora"),
    (
        ["encoder.tune=last_blocks", "encoder.last_blocks=5"],
        "encoder.last_blocks=5 are more than the 4 stages",
    ),
    (["encoder.lora_rank=0"], "encoder.lora_rank=0 must be positive"),
    (
        ["encoder=clip_vit_l14", "encoder.checkpoint_activations=true"],
        "encoder.checkpoint_activations=true is for a trained backbone, but encoder.tune=frozen",
    ),
    (["data.fraction=0"], "data.fraction=0.0 must lie in (0, 1]"),
    (["data.max_bad_fraction=5"], "data.max_bad_fraction=5.0 is a share in [0, 1)"),
    (["data.max_bad_fraction=1"], "data.max_bad_fraction=1.0 is a share in [0, 1)"),
    (
        ["encoder=cached", "encoder.features=nowhere"],
        "encoder.features=nowhere is no folder; write it: python -m",
    ),
    (["encoder.features=."], "encoder.features are of a frozen encoder, but encoder=resnet_tiny is trained"),
    (["encoder=resnet_tiny_frozen"], "name the run whose backbone it is: encoder.repo=runs/NAME"),
    (["encoder.repo=nowhere"], "encoder.repo=nowhere is neither a run's folder nor a .pt file"),
    (
        ["data=mp16", "data.root=s3://bucket/mp16"],
        "data.root=s3://bucket/mp16 is an address; shards are read by",
    ),
    (["data.fraction=1.2"], "data.fraction=1.2 must lie in (0, 1]"),
    (["location.sigmas=[1,-2]"], "location.sigmas=[1.0, -2.0] must all be positive"),
    (["location.sigmas=[]"], "location.sigmas=[] needs at least one scale"),
    (["optim.lr=0"], "optim.lr=0.0 must be positive"),
    (["optim.batch_size=100"], "optim.batch_size=100 does not divide over data.streams=16; try 96 or 112"),
    (["compute.workers=20"], "compute.workers=20 are more than the 16 streams of a rank"),
    (["encoder.feature_dim=99"], "encoder.feature_dim=99 must equal the last of encoder.widths"),
    (["encoder.widths=[8]"], "encoder.widths=[8] and encoder.depths=[1, 1, 1, 1] must be equally long"),
    (["data=mp16", "data.root="], "set MP16_SHARDS or data.root to the folder of the MP16 tar shards"),
    (["data=mp16", "data.root=nowhere"], "data.root=nowhere is no folder"),
    (["data=mp16", "gallery=csv"], "gallery.path='' of gallery=csv must name a CSV"),
    (["gallery=own"], "gallery=own is for evaluation"),
    (["data.bluemarble.span_km=0"], "data.bluemarble.span_km=0.0 must lie in (0, 20000] km"),
]


@pytest.mark.parametrize(("overrides", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_what_cannot_run_is_named(overrides: list[str], sentence: str) -> None:
    assert any(sentence in problem for problem in train_problems(train_config(*overrides), world_size=1))


def test_ranks_must_divide_the_streams() -> None:
    problems = train_problems(train_config(), world_size=3)
    assert problems == ["data.streams=16 does not divide over 3 ranks; try data.streams=15"]
    assert train_problems(replace(train_config()), world_size=4) == []


def run(*arguments: str, **environment: str) -> tuple[int, str, float]:
    """Exit status, what was printed, and the seconds it took, of the real command."""
    started_s = time.perf_counter()
    clean = {name: value for name, value in os.environ.items() if name not in ("MP16_SHARDS", "YFCC4K_DIR")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=clean | environment,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - started_s


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "an unknown key": (
        ["geoclip.train", "queue.sizes=3"],
        ["queue.sizes is no key", "did you mean 'size'?", "size, start, batch_noise_m, queue_noise_m"],
    ),
    "a wrong type": (["geoclip.train", "queue.size=many"], ["queue.size", "'many'", "Integer"]),
    "a wrong choice": (["geoclip.train", "optim.kind=sgd"], ["optim.kind", "adam, adamw"]),
    "a wrong option": (["geoclip.train", "encoder=vgg"], ["encoder/vgg", "clip_vit_l14", "resnet_tiny"]),
    "two wrong values": (
        ["geoclip.train", "queue.size=-1", "data.fraction=2"],
        ["queue.size=-1 must be 0 or more", "data.fraction=2.0 must lie in (0, 1]"],
    ),
    "missing shards": (
        ["geoclip.train", "+experiment=full_mp16"],
        ["set MP16_SHARDS or data.root", "how to build them"],
    ),
    "missing photographs": (
        ["geoclip.evaluate", "benchmark=yfcc4k"],
        ["set YFCC4K_DIR=FOLDER", "YFCC100M", "Revisiting IM2GPS"],
    ),
    "a picture that is not there": (
        ["geoclip.predict", "image=nowhere.jpg"],
        ["image=nowhere.jpg is neither"],
    ),
    "no picture at all": (["geoclip.predict"], ["image=FILE_OR_FOLDER or text='…' must be given"]),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_the_command_says_what_to_do(mistake: str) -> None:
    arguments, sentences = COMMANDS[mistake]
    status, printed, seconds = run(*arguments)
    assert status == 1
    assert all(sentence in printed for sentence in sentences), printed
    assert "Traceback" not in printed
    assert seconds < 10, "the bar is 3 s on an idle machine"


@pytest.mark.parametrize("entry", ["train", "evaluate", "predict", "shards", "features", "gallery", "report"])
def test_help_helps(entry: str) -> None:
    status, printed, _ = run(f"geoclip.{entry}", "--help")
    assert status == 0
    assert f"python -m geoclip.{entry}" in printed and "Configuration" in printed


def test_check_only_walks_a_sweep(tmp_path: Path) -> None:
    sweep = ["-m", "location.sigmas=[1],[16],[256],[1,16,256]", "check_only=true", f"runs_dir={tmp_path}"]
    status, printed, _ = run("geoclip.train", *sweep)
    assert status == 0, printed
    assert printed.count("  to run ") == 4 and "4 points, 0 finished, 4 to run" in printed


FILES = {"shards": "aaaa", "gallery": "aaaa"}


def plain_run(**changes: Any) -> dict[str, Any]:
    from geoclip.run_dir import to_dict

    return to_dict(train_config(*(f"{key}={value}" for key, value in changes.items())))


def test_a_folder_follows_from_the_science() -> None:
    from geoclip.run_dir import run_path

    base = run_path(plain_run(), FILES)
    assert base.name.startswith("bluemarble-") and base.parent == Path("runs")
    same = (
        {"compute.workers": 0},
        {"logger": "jsonl"},
        {"compute.device": "cpu"},
        {"data.root": "elsewhere"},
    )
    assert all(run_path(plain_run(**changes), FILES) == base for changes in same)
    other = (
        {"seed": 1},
        {"location.sigmas": "[1]"},
        {"data.fraction": 0.5},
        {"queue.size": 0},
        {"optim.max_steps": 9},
        {"data.streams": 8},
    )
    paths = {run_path(plain_run(**changes), FILES) for changes in other} | {
        run_path(plain_run(), FILES | {"gallery": "bbbb"})
    }
    assert len(paths) == len(other) + 1 and base not in paths
