"""A search by its real command: the best point, after a kill, with failures; and what is refused before it begins."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from geoclip.conf_dir import conf_dir
from geoclip.config import ConfigError
from geoclip.search import search
from geoclip.sweep import grid
from geoclip.sweep_axes import Choice, Interval, axes_of, override_of

SMALL = (
    *("+experiment=search", "encoder=resnet_tiny", "logger=jsonl", "data=mp16", "data.root=shards"),
    *("data.streams=4", "data.shuffle_buffer=4", "optim.batch_size=8", "optim.max_samples=16"),
    *("optim.warmup_steps=1", "gallery=csv", "gallery.path=gallery.csv", "compute.workers=0"),
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


def started(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if name != "MP16_SHARDS"}
    repository = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=clean | {"PYTHONPATH": repository, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(folder: Path) -> dict[str, float]:
    """When each finished run was finished."""
    return {
        path.parent.name: path.stat().st_mtime for path in (folder / "runs").glob("search-*/summary.json")
    }


@pytest.mark.slow
def test_a_search_killed_half_way_goes_on_with_the_same_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the galleries is without a single row, which only reading it can tell: these points fail."""
    pytest.importorskip("optuna")
    command = ["-m", "geoclip.train", *SMALL, "gallery.path=gallery.csv,empty.csv", "hydra.sweeper.trials=4"]
    with started(folder, command) as first:
        while len(list((folder / "runs").glob("search-*/config.yaml"))) < 2:
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
    before = finished(folder)
    assert len(before) == 1
    with started(folder, command) as second:
        printed, _ = second.communicate(timeout=120)
    assert not second.returncode and "search: 4 points, " in printed and "Traceback" not in printed, printed
    assert "4 points, 4 to run" not in printed
    after = finished(folder)
    assert after.items() > before.items()
    assert set(after) == {path.parent.name for path in (folder / "runs").glob("search-*/config.yaml")}

    (path,) = (folder / "runs" / ".search").glob("*.json")
    assert path.with_suffix(".db").is_file() and path.with_suffix(".png").is_file()
    found = json.loads(path.read_text())
    trials = found["trials"]
    assert len(trials) == 4 == len({tuple(trial["overrides"]) for trial in trials}), "draws do not begin anew"
    states = [(trial["values"]["gallery.path"], trial["state"]) for trial in trials]
    assert set(states) == {("gallery.csv", "complete"), ("empty.csv", "fail")}
    assert states.count(("gallery.csv", "complete")) == len(after)
    assert all("empty.csv" in trial["error"] for trial in trials if trial["state"] == "fail")
    assert found["best"]["geoscore"] == max(trial["geoscore"] or 0.0 for trial in trials)
    assert not list((folder / "runs").glob("*/eval/test*")), "a search reads the validation split alone"

    again = found["best"]["command"]
    assert again in printed and again.endswith(" seed=1,2,3")
    monkeypatch.chdir(folder)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*shlex.split(again)[4:-1], "seed=1"], return_hydra_config=True)
        (point,) = grid(cfg)
    assert cfg.hydra.mode.name == "MULTIRUN" and found["best"]["overrides"][0] in point.overrides


def test_without_optuna_it_says_what_to_install(folder: Path) -> None:
    hidden = "import runpy, sys; sys.modules['optuna'] = None; runpy.run_module('geoclip.train', run_name='__main__')"
    with started(folder, ["-c", hidden, *SMALL]) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in printed
    assert "hydra/sweeper=optuna needs a library that is not installed" in printed and "[sweeps]" in printed


REFUSED: list[tuple[dict[str, str], dict[str, int], str]] = [
    ({}, {}, "nothing is searched"),
    ({"optim.lr": "interval(1e-2,1e-3)"}, {}, "optim.lr: 0.01 to 0.001 is no interval; the lower end"),
    ({"optim.lr": "tag(log,interval(0,1))"}, {}, "optim.lr: 0 to 1 is no interval on a logarithm"),
    ({"queue.size": "interval(0,4096)"}, {}, "queue.size"),
    ({"queue.length": "1,2"}, {}, "queue.length"),
    ({"queue.size": "-1,-2", "optim.batch_size": "7"}, {}, "optim.batch_size=7 does not divide"),
    ({"queue.size": "1,2"}, {"trials": 0}, "hydra.sweeper.trials=0 must be 1 or more"),
]


@pytest.mark.parametrize(("params", "changed", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_no_point_can_be_is_refused_before_the_first(
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


def test_axes_are_read_as_hydra_reads_them() -> None:
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
