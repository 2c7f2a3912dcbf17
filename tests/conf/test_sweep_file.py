"""A sweep file holds the points of its study, and what an agent of wandb's runs is a command that works."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from geoclip.conf_dir import conf_dir
from geoclip.config import ConfigError, SweepFileConfig
from geoclip.sweep_axes import axes_of
from geoclip.sweep_file import wandb_sweep, write_sweep_file

STUDIES = sorted(
    path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml") if "\nstudy:" in path.read_text()
)


def written(tmp_path: Path, study: str, *overrides: str) -> dict[str, Any]:
    config = SweepFileConfig(study=study, overrides=list(overrides), output=str(tmp_path / "sweep.yaml"))
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        write_sweep_file(config)
    found: dict[str, Any] = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    return found


def commands(sweep: dict[str, Any]) -> list[list[str]]:
    """What wandb's agent would run for each point of a grid, by the functions that the agent itself calls."""
    lists = [[(key, value) for value in axis["values"]] for key, axis in sweep["parameters"].items()]
    found = []
    for point in itertools.product(*lists):
        args = {key: {"value": value} for key, value in point}
        filled = create_sweep_command_args({"args": args})
        filled |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
        command: list[str] = []
        for word in create_sweep_command(list(sweep["command"])):
            command += filled[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
        found.append(command)
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_all_points_of_the_file_are_all_points_of_the_study(study: str) -> None:
    """What an agent hands to Hydra is, word by word, what Hydra's own sweeper hands to its launcher."""
    said = [f"+experiment={study}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        params = compose("train", said, return_hydra_config=True).hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides(
        [*(f"{key}={value}" for key, value in params.items()), *said]
    )
    (points,) = BasicSweeper.split_arguments(parsed, None)
    axes, fixed = axes_of(params, said)
    sweep = yaml.safe_load(yaml.safe_dump(wandb_sweep(study, axes, fixed, project="geoclip", points=None)))
    assert sweep["method"] == "grid" and "run_cap" not in sweep
    found = commands(sweep)
    assert all(command[:4] == ["/usr/bin/env", "python", "-m", "geoclip.train"] for command in found)
    assert len(found) == len(points) >= 3
    assert {frozenset(command[4:]) for command in found} == {
        frozenset([*point, "hydra.mode=RUN"]) for point in points
    }


def test_a_search_becomes_a_search(tmp_path: Path) -> None:
    sweep = written(
        tmp_path, "search", "optim.batch_size=128", "location.sigma_min=1", "location.sigma_max=256"
    )
    assert sweep["method"] == "bayes" and sweep["run_cap"] == 24
    assert sweep["metric"] == {"name": "val/geoscore", "goal": "maximize"}
    kinds = {key: axis.get("distribution") for key, axis in sweep["parameters"].items()}
    assert kinds["optim.lr"] == "log_uniform_values" and kinds["location.scales"] == "int_uniform"
    assert sweep["parameters"]["queue.size"] == {"values": [0, 256, 1024, 4096]}
    assert "optim.batch_size=128" in sweep["command"] and "optim.batch_size" not in kinds


def test_the_metric_is_what_a_run_records() -> None:
    from geoclip.recorder import _flat

    assert "val/geoscore" in _flat("val", {"geoscore": 1.0})


@pytest.mark.parametrize(
    ("study", "overrides", "sentence"),
    [
        ("full_mp16", [], "no hydra.sweeper.params"),
        ("scales", ["optim.lr=interval(2,1)"], "optim.lr: 2 to 1 is no interval"),
    ],
)
def test_what_is_no_sweep_is_refused(study: str, overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        written(tmp_path, study, *overrides)
    assert not list(tmp_path.iterdir())


def test_an_agent_runs_the_command(tmp_path: Path) -> None:
    """From the entry point to what an agent starts, each by its real command."""
    environment = {name: value for name, value in os.environ.items() if name != "MP16_SHARDS"} | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    for folder in ("backbone", "bluemarble"):  # as make study-features leaves them
        (tmp_path / "features" / folder).mkdir(parents=True)

    def run(command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    writing = [sys.executable, "-m", "geoclip.sweep_file", "study=scales"]
    status, printed = run([*writing, 'overrides=["queue.sizes=3"]'])
    assert status == 1 and "did you mean 'size'?" in printed and "Error executing" not in printed, printed
    axes = '"location.sigmas=[1],[1,4,16,64,256]","seed=2","check_only=true"'
    status, printed = run([*writing, f"overrides=[{axes}]"])
    assert not status and "wandb sweep sweep.yaml" in printed, printed
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert sweep["parameters"] == {"location.sigmas": {"values": ["[1]", "[1,4,16,64,256]"]}}
    status, printed = run(commands(sweep)[1])
    assert not status, printed
    composed = yaml.safe_load(printed.partition("\n\n")[0])  # a summary and OK come after it
    assert composed["seed"] == 2 and composed["location"]["sigmas"] == [1, 4, 16, 64, 256]
