"""A search: resumed after a kill, with failing points; and spaces that are refused."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException

from geoclip import train
from geoclip.cli.app import run_entry_point
from geoclip.cli.search import search
from geoclip.cli.sweep import Choice, Interval, axes_of, grid, override_of
from geoclip.config import ConfigError, TrainConfig
from geoclip.config.composed import conf_dir
from tests.commands import begin, environment, printed_in, wait_until

SMALL = (
    *("+experiment=search", "encoder=resnet_tiny", "logger=jsonl", "data=mp16", "data.root=shards"),
    *("data.streams=4", "data.shuffle_buffer=4", "optim.batch_size=8", "optim.max_samples=16"),
    *("optim.warmup_steps=1", "gallery=csv", "gallery.path=gallery.csv", "compute.workers=0"),
    *("location.sigma_min=1", "location.sigma_max=256", "location.scales=2", "queue.size=16"),
    *("location.hidden_dim=16", "location.embedding_dim=16", "location.frequencies=8"),
)


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Callable[..., Any]) -> Path:
    """A working folder with tiny shards, a gallery of their places, and a gallery without any."""
    places = tiny_shards([24]).gps_deg
    tiny_shards([8], split="val", seed=1)
    lines = [f"{lat},{lon}" for lat, lon in places.values()]
    (tmp_path / "gallery.csv").write_text("\n".join(["LAT,LON", *lines]) + "\n")
    (tmp_path / "empty.csv").write_text("LAT,LON\n")
    return tmp_path


def searched(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command in this process."""
    monkeypatch.setattr(sys, "argv", ["geoclip.train", *command[1:]])
    monkeypatch.delenv("MP16_SHARDS", raising=False)
    try:
        run_entry_point("train", TrainConfig, train.main)
    finally:
        HydraConfig.instance().cfg = None


@pytest.mark.slow
def test_a_killed_search_resumes_with_the_same_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of the galleries is empty, so its points fail."""
    optuna = pytest.importorskip("optuna")
    command = ["train", *SMALL, "gallery.path=gallery.csv,empty.csv", "hydra.sweeper.trials=3"]
    process = begin(folder, *command)
    wait_until(lambda: "Launching" in printed_in(folder), alive=process.is_alive)
    process.kill()
    process.join()
    (path,) = (folder / "runs" / ".search").glob("*.db")
    (interrupted,) = optuna.load_study(study_name=None, storage=f"sqlite:///{path}").trials
    assert interrupted.state.name == "RUNNING"

    monkeypatch.chdir(folder)
    caplog.set_level("INFO")
    searched(command, monkeypatch)
    assert "search: 3 points, 3 to run" in caplog.text and "search: 3 points, 2 finished, 1 failed" in caplog.text
    assert path.with_suffix(".png").is_file()
    found = json.loads(path.with_suffix(".json").read_text())
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2] and trials[0]["values"] == interrupted.params
    assert len({tuple(trial["overrides"]) for trial in trials}) == 3
    states = [(trial["values"]["gallery.path"], trial["state"]) for trial in trials]
    assert set(states) == {("gallery.csv", "complete"), ("empty.csv", "fail")}
    assert all("empty.csv" in trial["error"] for trial in trials if trial["state"] == "fail")
    assert found["best"]["geoscore"] == max(trial["geoscore"] or 0.0 for trial in trials)
    runs = list((folder / "runs").glob("search-*/summary.json"))
    assert len(runs) == 2 and not any(list(run.parent.glob("eval/test*")) for run in runs)

    again = found["best"]["command"]
    assert again in caplog.text and again.endswith(" seed=1,2,3")
    caplog.clear()
    searched(command, monkeypatch)
    assert "search: 3 points, 0 to run" in caplog.text and again in caplog.text
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*shlex.split(again)[4:-1], "seed=1"], return_hydra_config=True)
        (point,) = grid(cfg)
    assert cfg.hydra.mode.name == "MULTIRUN" and found["best"]["overrides"][0] in point.overrides


def test_without_optuna_the_error_names_the_extra_to_install(folder: Path) -> None:
    hidden = "import runpy, sys; sys.modules['optuna'] = None; runpy.run_module('geoclip.train', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *SMALL],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "hydra/sweeper=optuna" in done.stderr and "[sweeps]" in done.stderr


REFUSED: list[tuple[dict[str, str], dict[str, int], str]] = [
    ({}, {}, "hydra.sweeper.params"),
    ({"optim.lr": "interval(1e-2,1e-3)"}, {}, "optim.lr: 0.01 to 0.001"),
    ({"optim.lr": "tag(log,interval(0,1))"}, {}, "optim.lr: 0 to 1"),
    ({"queue.size": "interval(0,4096)"}, {}, "queue.size"),
    ({"queue.length": "1,2"}, {}, "queue.length"),
    ({"queue.size": "-1,-2", "optim.batch_size": "7"}, {}, "optim.batch_size=7"),
    ({"queue.size": "1,2"}, {"trials": 0}, "hydra.sweeper.trials=0"),
]


@pytest.mark.parametrize(("params", "changed", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_space_in_which_no_point_can_run_is_refused(
    params: dict[str, str], changed: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    settings = {"trials": 3, "at_once": 1, "random_trials": 2, "seed": 0} | changed
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", [f"runs_dir={tmp_path}"], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        with pytest.raises((ConfigError, HydraException)) as raised:
            search(config, loader, None, [], **settings, params=params)  # type: ignore[arg-type]
    assert sentence in "\n".join([*getattr(raised.value, "problems", []), str(raised.value)])
    assert not list(tmp_path.iterdir())


def test_axes_are_parsed_as_by_hydra() -> None:
    params = {
        "seed": "0,1,2",
        "optim.lr": "tag(log, interval(1e-4, 1e-2))",
        "location.scales": "int(interval(2, 6))",
        "location.sigmas": "[1],[1,16]",
        "queue.size": "range(0,3)",
        "data.fraction": "0.5",
    }
    axes, fixed = axes_of(params, ["seed=7", "+experiment=scales"])
    assert fixed == ["data.fraction=0.5", "seed=7", "+experiment=scales"]
    assert axes == [
        Interval(key="optim.lr", low=1e-4, high=1e-2, log=True, whole=False),
        Interval(key="location.scales", low=2, high=6, log=False, whole=True),
        Choice(key="location.sigmas", values=("[1]", "[1,16]")),
        Choice(key="queue.size", values=("0", "1", "2")),
    ]
    assert [override_of(axis, 3) for axis in axes[1:2]] == ["location.scales=3"]
    assert override_of(axes[0], 0.00123456789) == "optim.lr=0.00123457"
