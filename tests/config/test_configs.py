"""Every experiment and benchmark composes; every mistake is named before anything is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from geoclip.config import (
    SCHEMAS,
    ConfigError,
    DataKind,
    EvaluateConfig,
    TrainConfig,
    evaluate_problems,
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


PROBLEMS = """
queue.size=-1
compute.accumulation=3 -> optim.batch_size=256:
compute.max_minutes=0.0
compute.timeout_minutes=0.0
compute.keep_checkpoints=0
resume=nowhere
optim.ema_decay=1.0
optim.encoder_lr=-1.0
optim.lr=0.0
optim.batch_size=100
compute.workers=20
encoder.tune=lora -> encoder=resnet_tiny:
encoder.tune=last_blocks encoder.last_blocks=5
encoder.lora_rank=0
encoder=clip_vit_l14 encoder.checkpoint_activations=true
encoder=cached encoder.features=nowhere
encoder.features=.
encoder=resnet_tiny_frozen -> encoder.tune=frozen:
encoder.repo=nowhere
encoder.feature_dim=99
encoder.widths=[8]
data.fraction=0.0
data.fraction=1.2
data.max_bad_fraction=5.0
data.max_bad_fraction=1.0
data=mp16 data.root=s3://bucket/mp16
data=mp16 data.root= -> data=mp16:
data=mp16 data.root=nowhere
data.bluemarble.span_km=0.0
data=mp16 gallery=csv -> gallery.path='':
gallery=own
location.sigmas=[1.0,-2.0]
location.sigmas=[]
location.hidden_dim=0
location.sigma_min=0.0
location.sigmas=null location.sigma_max=0.5
location.combine=concat -> location.embedding_dim=256:
location.init=nowhere
location.init=official -> location.hidden_dim=256:
location=finer location.projection=sphere
location=finer location.share_mlp=true -> location.init=official:
location.freeze_init=true
location=direct location.init=official
location=spherical_harmonics location.degree=200
loss.temperature=0.0
loss.logit_scale_max=5.0
loss.views=0
loss.views=2
loss.hard_negatives=-1
loss.near_radius_km=0.0
loss.hard_radius_km=30000.0
loss.near=mask loss.hard_negatives=4 loss.hard_radius_km=100 loss.near_radius_km=500
data.streams=1 queue=no_queue_noise queue.size=0 optim.batch_size=1
data.streams=1 queue.size=0 loss=sigmoid optim.batch_size=1
data.streams=1 loss=symmetric optim.batch_size=1
""".strip()


@pytest.mark.parametrize("case", PROBLEMS.splitlines())
def test_what_cannot_run_is_named(case: str) -> None:
    """The problem begins with the last override, or with the text after the arrow."""
    overrides, _, begin = case.partition(" -> ")
    begin = begin or f"{overrides.split()[-1]}:"
    assert any(problem.startswith(begin) for problem in problems_of(*overrides.split()))


@pytest.mark.parametrize(
    "overrides",
    [
        "location=finer location.freeze_init=true",
        "location.sigmas=null location.scales=5",
        "loss=sigmoid loss.views=2 data.flip=true loss.near=mask",
        "loss.learn_temperature=false loss.logit_scale_max=null",
        "fidelity=released",
        "optim.batch_size=1 data.streams=1",
        "optim.batch_size=1 data.streams=1 queue.size=0 loss.hard_negatives=2",
    ],
)
def test_a_valid_configuration_has_no_problem(overrides: str) -> None:
    assert problems_of(*overrides.split()) == []


def test_ranks_must_divide_the_streams() -> None:
    (problem,) = train_problems(train_config(), world_size=3)
    assert problem.startswith("data.streams=16:") and "data.streams=15" in problem
    assert train_problems(train_config(), world_size=4) == []


COMMANDS: list[tuple[str, list[str]]] = [
    ("train queue.sizes=3", ["queue.sizes:", "'size'", "size, start, batch_noise_m, queue_noise_m"]),
    ("train queue.size=many", ["queue.size=many:"]),
    ("train optim.kind=sgd", ["optim.kind=sgd:", "adam, adamw"]),
    ("train encoder=vgg", ["encoder=vgg:", "clip_vit_l14", "resnet_tiny"]),
    ("train queue.size=-1 data.fraction=2", ["queue.size=-1:", "data.fraction=2.0:"]),
    ("train +experiment=full_mp16", ["MP16_SHARDS", "data.root"]),
    ("evaluate benchmark=yfcc4k", ["YFCC4K_DIR=FOLDER", "YFCC100M", "Revisiting IM2GPS"]),
    ("predict image=nowhere.jpg", ["image=nowhere.jpg:"]),
    ("predict", ["image=FILE_OR_FOLDER"]),
]


@pytest.mark.parametrize(("command", "named"), COMMANDS)
def test_a_command_names_every_wrong_key_and_its_fix(command: str, named: list[str], tmp_path: Path) -> None:
    status, printed = run(tmp_path, *command.split())
    assert status == 1
    assert all(part in printed for part in named), printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("entry", ["train", "evaluate", "predict", "shards", "features", "gallery", "report"])
def test_help_lists_every_key(entry: str, tmp_path: Path) -> None:
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
    values = {"seed": 1, "location.sigmas": "[1]", "data.fraction": 0.5, "queue.size": 0, "optim.max_steps": 9}
    other = [{key: value} for key, value in values.items()]
    paths = {run_path(plain_run(**changes), FILES) for changes in other}
    paths.add(run_path(plain_run(), FILES | {"gallery": "bbbb"}))
    assert len(paths) == len(other) + 1 and base not in paths
