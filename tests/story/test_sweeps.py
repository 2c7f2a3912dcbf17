"""Sweeps by their commands: two points by each launcher, one folder each, and no other files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
import yaml

from geoclip.runs.metrics import read_rows
from tests import commands
from tests.commands import REPOSITORY, begin, finish, kill, run_module, wait_until

STEPS = 2
PLUGINS = {"joblib": "hydra-joblib-launcher", "submitit": "hydra-submitit-launcher"}
LAUNCHERS = ("joblib", "submitit_local")
HIDDEN = {".submitit", ".sweep"}  # in runs/: submitit's logs, and Hydra's record of the last sweep
SMALL = (
    *("name=sweep", "logger=jsonl", "data=mp16", "data.root=shards"),
    *("data.streams=4", "data.shuffle_buffer=4", "queue.size=16"),
    *("optim.batch_size=8", f"optim.max_steps={STEPS}", "optim.warmup_steps=1"),
    *("gallery=csv", "gallery.path=gallery.csv", "compute.workers=0", "compute.log_every_steps=1"),
)


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Callable[..., Any]) -> Path:
    """A working folder with tiny shards and a gallery of their locations."""
    places = tiny_shards([24, 24]).gps_deg
    tiny_shards([8], split="val", seed=1)
    lines = [f"{lat},{lon}" for lat, lon in places.values()]
    (tmp_path / "gallery.csv").write_text("\n".join(["LAT,LON", *lines]) + "\n")
    return tmp_path


def sweep(folder: Path, launcher: str, *more: str, **variables: str) -> tuple[int | None, str]:
    """Exit status and output of a sweep over two seeds."""
    plugin = PLUGINS[launcher.partition("_")[0]]
    try:
        metadata.version(plugin)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{plugin} is not installed: pip install -c constraints.txt -e '.[sweeps]'")
    return commands.run(folder, "train", "-m", "seed=0,1", f"hydra/launcher={launcher}", *SMALL, *more, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_has_one_folder_per_point(folder: Path, launcher: str) -> None:
    before = {path.name for path in folder.iterdir()}
    status, printed = sweep(folder, launcher)
    assert status == 0, printed
    runs = [path for path in (folder / "runs").iterdir() if path.name not in HIDDEN]
    assert {path.name for path in folder.iterdir()} == before | {"runs", "printed.txt"}
    assert all(path.name.startswith("sweep-") for path in runs), runs
    assert sorted(yaml.safe_load((run / "config.yaml").read_text())["seed"] for run in runs) == [0, 1]
    for run in runs:
        steps = [row["step"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
        assert steps == [*range(1, STEPS + 1)] and list((run / "checkpoints").iterdir())
    if launcher == "joblib":  # the second point starts before the first is through
        assert printed.rindex(" starts: ") < printed.index("trained: "), printed
    else:  # each has its own log
        logs = (folder / "runs" / ".submitit").glob("*/*_0_log.err")
        assert sum("trained: " in log.read_text() for log in logs) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_invalid_point_ends_in_a_sentence(folder: Path, launcher: str) -> None:
    status, printed = sweep(folder, launcher, "queue.size=-1")
    assert status == 1
    assert "queue.size=-1:" in printed and "Traceback" not in printed, printed


def test_a_missing_launcher_plugin_is_named_with_the_extra_to_install(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "hydra_plugins").mkdir(parents=True)
    (tmp_path / "empty" / "hydra_plugins" / "__init__.py").touch()  # hides every plugin that is installed
    found = os.pathsep.join([str(tmp_path / "empty"), str(REPOSITORY)])
    status, printed = run_module(
        folder, "geoclip.train", "-m", "seed=0,1", "hydra/launcher=joblib", *SMALL, PYTHONPATH=found
    )
    assert status == 1
    assert "hydra/launcher=joblib needs" in printed and "sweeps" in printed and "Traceback" not in printed


def test_slurm_jobs_signal_early_and_are_requeued(folder: Path) -> None:
    (folder / "bin").mkdir()
    answers = {"srun": "exit 1", "sbatch": 'cat "$1" > job.sh; echo "no partition of that name" >&2; exit 1'}
    for name, answer in answers.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{answer}\n")
        (folder / "bin" / name).chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    status, printed = sweep(folder, "submitit_slurm", "hydra.launcher.partition=gpu", PATH=path)
    assert status == 1 and "no partition of that name" in printed and "Traceback" not in printed, printed
    job = (folder / "job.sh").read_text()
    for option in (
        *("--array=0-1%2", "--nodes=1", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=8"),
        *("--partition=gpu", "--signal=USR2@120", "--requeue", "--open-mode=append", "--time=1440"),
    ):
        assert f"#SBATCH {option}\n" in job, job
    assert f"{folder}/runs/.submitit/" in job


def finished(folder: Path) -> dict[int, float]:
    """The time at which each run was finished, by seed."""
    runs = (path.parent for path in (folder / "runs").glob("sweep-*/summary.json"))
    return {
        yaml.safe_load((run / "config.yaml").read_text())["seed"]: (run / "summary.json").stat().st_mtime
        for run in runs
    }


@pytest.mark.slow
def test_a_killed_sweep_runs_only_the_missing_points(folder: Path) -> None:
    command = ("train", "-m", *SMALL, "seed=0,1,2", "optim.max_steps=4")
    process = begin(folder, *command)
    wait_until(lambda: finished(folder), alive=process.is_alive)
    kill(process)
    before = finished(folder)
    assert 1 <= len(before) < 3
    plan = finish(folder, *command, "check_only=true")
    assert f"sweep: 3 points, {len(before)} finished, {3 - len(before)} to run" in plan
    assert plan.count("\n  finished") == len(before)
    again = finish(folder, *command)
    after = finished(folder)
    assert sorted(after) == [0, 1, 2] and {seed: after[seed] for seed in before} == before
    assert again.count("already finished") == len(before)
    assert "3 points, 3 finished, 0 failed" in again


@pytest.mark.slow
def test_a_failed_point_is_named_and_the_others_run(folder: Path, tmp_path: Path) -> None:
    """One of the data sets has pictures that cannot be decoded, which only training finds."""
    (folder / "shards" / "broken").mkdir()
    with wds.TarWriter(str(folder / "shards" / "broken" / "000000.tar")) as tar:
        for number in range(24):
            place = json.dumps({"lat": number, "lon": 2}).encode()
            tar.write({"__key__": f"{number:03d}", "png": b"corrupt", "json": place})
    status, printed = commands.run(folder, "train", "-m", *SMALL, "data.train=train,broken", "seed=0,1")
    assert status == 1 and "Traceback" not in printed, printed
    assert "4 points, 2 finished, 2 failed" in printed
    assert "failed: " in printed and "data.train=broken seed=1" in printed
    assert sorted(finished(folder)) == [0, 1]


def test_no_point_starts_if_one_of_them_is_invalid(folder: Path) -> None:
    status, printed = commands.run(folder, "train", "-m", *SMALL, "queue.size=16,-1,-2", "seed=0,1")
    assert status == 1 and "Traceback" not in printed, printed
    assert "queue.size=-2:" in printed and printed.count("seed=1") == 2
    assert not list((folder / "runs").glob("sweep-*"))
