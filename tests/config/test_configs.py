"""Every experiment and benchmark composes; every mistake is named before anything is built."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from geoclip.config import (
    SCHEMAS,
    ConfigError,
    DataKind,
    EvaluateConfig,
    PredictConfig,
    ShardsConfig,
    TrainConfig,
    evaluate_problems,
    predict_problems,
    shards_problems,
    train_problems,
    typed,
)
from geoclip.config.composed import conf_dir
from tests.commands import run


def train_config(*overrides: str) -> TrainConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("train", list(overrides)), TrainConfig, lambda _: [])


def problems_of(*overrides: str) -> list[str]:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = compose("train", list(overrides))
    try:
        typed(composed, TrainConfig, lambda found: train_problems(found, 1))
    except ConfigError as refused:
        return refused.problems
    return []


@pytest.mark.parametrize("path", sorted(Path(conf_dir(), "experiment").glob("*.yaml")), ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", sorted(Path(conf_dir(), "benchmark").glob("*.yaml")), ids=lambda path: path.stem)
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
        chosen = f"{'/'.join(groups).replace('experiment', '+experiment')}={name}" if groups else f" geoclip.{name}"
        assert "-m geoclip." in "".join(head) and chosen in "".join(head), f"{path} does not show {chosen}"


def test_the_paper_set_up_is_the_paper_set_up(tmp_path: Path) -> None:
    config = train_config("+experiment=full_mp16", f"data.root={tmp_path}")
    assert config.encoder.repo == "openai/clip-vit-large-patch14" and config.encoder.frozen
    assert config.location.sigmas == [2**0, 2**4, 2**8]
    assert (config.queue.size, config.optim.batch_size) == (4096, 512)
    assert (config.queue.batch_noise_m, config.queue.queue_noise_m) == (150, 1000)
    assert (config.location.frequencies, config.location.hidden_dim, config.location.embedding_dim) == (256, 1024, 512)


PROBLEMS: list[tuple[list[str], str]] = [
    (["queue.size=-1"], "queue.size=-1:"),
    (["compute.accumulation=3"], "optim.batch_size=256:"),
    (["compute.max_minutes=0"], "compute.max_minutes=0.0:"),
    (["compute.timeout_minutes=0"], "compute.timeout_minutes=0.0:"),
    (["compute.keep_checkpoints=0"], "compute.keep_checkpoints=0:"),
    (["resume=nowhere"], "resume=nowhere:"),
    (["optim.ema_decay=1"], "optim.ema_decay=1.0:"),
    (["optim.encoder_lr=-1"], "optim.encoder_lr=-1.0:"),
    (["encoder.tune=lora"], "encoder=resnet_tiny:"),
    (["encoder.tune=last_blocks", "encoder.last_blocks=5"], "encoder.last_blocks=5:"),
    (["encoder.lora_rank=0"], "encoder.lora_rank=0:"),
    (["encoder=clip_vit_l14", "encoder.checkpoint_activations=true"], "encoder.checkpoint_activations=true:"),
    (["data.fraction=0"], "data.fraction=0.0:"),
    (["data.max_bad_fraction=5"], "data.max_bad_fraction=5.0:"),
    (["data.max_bad_fraction=1"], "data.max_bad_fraction=1.0:"),
    (["encoder=cached", "encoder.features=nowhere"], "encoder.features=nowhere:"),
    (["encoder.features=."], "encoder.features=.:"),
    (["encoder=resnet_tiny_frozen"], "encoder.tune=frozen:"),
    (["encoder.repo=nowhere"], "encoder.repo=nowhere:"),
    (["data=mp16", "data.root=s3://bucket/mp16"], "data.root=s3://bucket/mp16:"),
    (["data.fraction=1.2"], "data.fraction=1.2:"),
    (["location.sigmas=[1,-2]"], "location.sigmas=[1.0,-2.0]:"),
    (["location.sigmas=[]"], "location.sigmas=[]:"),
    (["optim.lr=0"], "optim.lr=0.0:"),
    (["optim.batch_size=100"], "optim.batch_size=100:"),
    (["compute.workers=20"], "compute.workers=20:"),
    (["encoder.feature_dim=99"], "encoder.feature_dim=99:"),
    (["encoder.widths=[8]"], "encoder.widths=[8]:"),
    (["data=mp16", "data.root="], "data=mp16:"),
    (["data=mp16", "data.root=nowhere"], "data.root=nowhere:"),
    (["data=mp16", "gallery=csv"], "gallery.path='':"),
    (["gallery=own"], "gallery=own:"),
    (["data.bluemarble.span_km=0"], "data.bluemarble.span_km=0.0:"),
]


@pytest.mark.parametrize(("overrides", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_what_cannot_run_is_named(overrides: list[str], sentence: str) -> None:
    assert any(problem.startswith(sentence) for problem in problems_of(*overrides))


def test_ranks_must_divide_the_streams() -> None:
    (problem,) = train_problems(train_config(), world_size=3)
    assert problem.startswith("data.streams=16:") and "data.streams=15" in problem
    assert train_problems(replace(train_config()), world_size=4) == []


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "an unknown key": (
        ["train", "queue.sizes=3"],
        ["queue.sizes:", "'size'", "size, start, batch_noise_m, queue_noise_m"],
    ),
    "a wrong type": (["train", "queue.size=many"], ["queue.size=many:"]),
    "a wrong choice": (["train", "optim.kind=sgd"], ["optim.kind=sgd:", "adam, adamw"]),
    "a wrong option": (["train", "encoder=vgg"], ["encoder=vgg:", "clip_vit_l14", "resnet_tiny"]),
    "two wrong values": (["train", "queue.size=-1", "data.fraction=2"], ["queue.size=-1:", "data.fraction=2.0:"]),
    "missing shards": (["train", "+experiment=full_mp16"], ["set MP16_SHARDS or data.root", "how to build them"]),
    "missing photographs": (
        ["evaluate", "benchmark=yfcc4k"],
        ["set YFCC4K_DIR=FOLDER", "YFCC100M", "Revisiting IM2GPS"],
    ),
    "a picture that is not there": (["predict", "image=nowhere.jpg"], ["image=nowhere.jpg:"]),
    "no picture at all": (["predict"], ["image=FILE_OR_FOLDER"]),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_the_command_says_what_to_do(mistake: str, tmp_path: Path) -> None:
    arguments, sentences = COMMANDS[mistake]
    status, printed = run(tmp_path, *arguments)
    assert status == 1
    assert all(sentence in printed for sentence in sentences), printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("entry", ["train", "evaluate", "predict", "shards", "features", "gallery", "report"])
def test_help_helps(entry: str, tmp_path: Path) -> None:
    status, printed = run(tmp_path, entry, "--help")
    assert status == 0
    assert f"python -m geoclip.{entry}" in printed and "Keys (" in printed
    for name in get_type_hints(SCHEMAS[entry]):
        assert re.search(rf"^  {name}[=.]", printed, re.MULTILINE), name
    assert ("encoder=" in printed) == (entry in ("train", "features"))


def test_check_only_walks_a_sweep(tmp_path: Path) -> None:
    sweep = ["-m", "location.sigmas=[1],[16],[256],[1,16,256]", "check_only=true", f"runs_dir={tmp_path}"]
    status, printed = run(tmp_path, "train", *sweep)
    assert status == 0, printed
    assert printed.count("  to run ") == 4 and "4 points, 0 finished, 4 to run" in printed


FILES = {"shards": "aaaa", "gallery": "aaaa"}


def plain_run(**changes: Any) -> dict[str, Any]:
    from geoclip.runs.run_dir import to_dict

    return to_dict(train_config(*(f"{key}={value}" for key, value in changes.items())))


def test_a_folder_follows_from_the_science() -> None:
    from geoclip.runs.run_dir import run_path

    base = run_path(plain_run(), FILES)
    assert base.name.startswith("bluemarble-") and base.parent == Path("runs")
    same = ({"compute.workers": 0}, {"logger": "jsonl"}, {"compute.device": "cpu"}, {"data.root": "elsewhere"})
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
