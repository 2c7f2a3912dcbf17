"""Runs that are killed, stopped or suspended end with the same results: tests with real processes.

Runs read data in their own process unless a test is about reader processes, which are slow to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from geoclip.runs.metrics import read_rows
from geoclip.runs.run_dir import git_revision
from geoclip.runs.wandb_process import records
from geoclip.training.checkpoint import read_checkpoint
from tests import commands
from tests.commands import begin_ranks, join_all, kill, printed_in, start_module, wait_until
from tests.tiny_shards import write_shards
from tests.wandb_records import is_alive, wandb_history

STEPS = 60
SMALL = (
    *("name=fault", "data=mp16", "data.root=shards", "data.streams=4", "data.shuffle_buffer=4"),
    *("encoder.image_px=16", "encoder.stem_dim=8", "encoder.widths=[8,16]", "encoder.depths=[1,1]"),
    *("encoder.feature_dim=16", "encoder.hidden_dim=16", "location.sigmas=[1,16]", "location.frequencies=16"),
    *("location.hidden_dim=32", "location.embedding_dim=16", "queue.size=16"),
    *("optim.batch_size=8", "optim.epochs=50", f"optim.max_steps={STEPS}", "optim.warmup_steps=2"),
    *("optim.grad_clip=1", "optim.average=ema", "optim.ema_decay=0.9"),
    *("gallery=csv", "gallery.path=gallery.csv", "logger=jsonl", "validate_every_steps=4"),
    *("compute.log_every_steps=3", "compute.checkpoint_every_steps=2", "compute.keep_checkpoints=3"),
    "compute.workers=0",
)
RESUMABLE = 75  # exit status
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found through /proc")
CURVE = (
    *("optim.max_steps=50", "optim.lr=3e-5", "optim.kind=adam", "compute.log_every_steps=1"),
    *("validate_every_steps=50", "compute.checkpoint_every_steps=50"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny shards and a gallery of their locations."""
    data = tmp_path_factory.mktemp("data")
    places = write_shards(data, [60, 61], size_px=20).gps_deg
    write_shards(data, [20], split="val", seed=1, size_px=20)
    lines = [f"{lat},{lon}" for lat, lon in places.values()]
    (data / "gallery.csv").write_text("\n".join(["LAT,LON", *lines]) + "\n")
    return data


def working_folder(folder: Path, data: Path) -> Path:
    for path in data.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """A working folder with that data."""
    return working_folder(tmp_path, data)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Any]:
    """The outcome of an undisturbed run."""
    return outcome(finish(working_folder(tmp_path_factory.mktemp("expected"), data)))


def begin(folder: Path, *arguments: str) -> ForkServerProcess:
    return commands.begin(folder, "train", *SMALL, *arguments)


def finish(folder: Path, *arguments: str) -> Path:
    commands.finish(folder, "train", *SMALL, *arguments)
    return run_in(folder, *arguments)


def finish_ranks(folder: Path, ranks: int, *arguments: str) -> Path:
    join_all(begin_ranks(folder, ranks, "train", *SMALL, *arguments), folder)
    return run_in(folder, *arguments)


def wait_for_checkpoint(folder: Path, processes: list[ForkServerProcess]) -> None:
    """Wait until the run has written a checkpoint."""
    wait_until(
        lambda: list(folder.glob("runs/*/checkpoints/step-*")),
        alive=lambda: all(process.is_alive() for process in processes),
    )


def run_in(folder: Path, *arguments: str) -> Path:
    runs = next((one.partition("=")[2] for one in arguments if one.startswith("runs_dir=")), "runs")
    (run,) = (folder / runs).glob("fault-*")
    return run


def outcome(run: Path) -> dict[str, Any]:
    """Everything that must be bit-identical: the newest checkpoint, the best, and every metric."""
    found: dict[str, Any] = {
        "rows": [
            {key: value for key, value in row.items() if key != "samples_per_s"}
            for row in read_rows(run / "metrics.jsonl")
        ]
    }
    for name in (f"step-{STEPS:08d}.safetensors", "best.safetensors"):
        tree = read_checkpoint(run / "checkpoints" / name)
        for part in ("model", "average", "optimizer", "queue", "counters"):
            found |= {f"{name} {part} {key}": value for key, value in flat(tree.get(part)).items()}
    return found


def flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, torch.Tensor):
        return {path: node.tolist()}
    if isinstance(node, dict):
        return {name: leaf for key, value in node.items() for name, leaf in flat(value, f"{path}/{key}").items()}
    if isinstance(node, list):
        return flat({str(number): value for number, value in enumerate(node)}, path)
    return {path: node}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(0, 6), (1, 2)])
def test_killed_at_random_moments_it_ends_in_the_same_bits(
    folder: Path, expected: dict[str, Any], workers: int, kills: int
) -> None:
    rng, reading = random.Random(4), f"compute.workers={workers}"
    for after in sorted(rng.sample(range(STEPS // 2), kills)):  # long before its end
        process = begin(folder, reading)
        wait_until(lambda after=after: last_step(folder) >= after, alive=process.is_alive)  # type: ignore[misc]
        process.join(rng.uniform(0, 0.05))
        kill(process)
    assert outcome(finish(folder, reading)) == expected
    assert not list(run_in(folder).rglob("*.partial"))


def last_step(folder: Path) -> int:
    """The last step in the metrics of this folder's run; 0: none yet."""
    rows = [row for path in folder.glob("runs/fault-*/metrics.jsonl") for row in read_rows(path)]
    return max((int(row["step"]) for row in rows), default=0)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_signal_writes_a_checkpoint_and_the_run_resumes(
    folder: Path, expected: dict[str, Any], number: signal.Signals
) -> None:
    workers = "compute.workers=1" if number == signal.SIGTERM else "compute.workers=0"
    process = begin(folder, workers)
    wait_for_checkpoint(folder, [process])
    assert process.pid is not None
    for one in (*children(process.pid), process.pid):  # as schedulers do, readers included
        os.kill(one, number)
    process.join(60)
    assert process.exitcode == (130 if number == signal.SIGINT else RESUMABLE), printed_in(folder)
    run = run_in(folder)
    log = (run / "logs" / "rank0.log").read_text()
    step = int(re.findall(rf"{number.name} after step (\d+)", log)[-1])
    assert (run / "checkpoints" / f"step-{step:08d}.safetensors").is_file()
    assert outcome(finish(folder, workers)) == expected


def test_the_time_limit_stops_a_run(folder: Path) -> None:
    process = begin(folder, "compute.max_minutes=0.001")
    process.join(60)
    assert process.exitcode == RESUMABLE
    assert "compute.max_minutes after step 1" in printed_in(folder)


def test_another_configuration_is_refused_with_the_differences_unless_forced(folder: Path) -> None:
    first = finish(folder, "runs_dir=first", "optim.max_steps=4")
    other = ("runs_dir=other", "seed=7", "queue.queue_noise_m=5", f"resume={first}", "optim.max_steps=6")
    join_all([begin(folder, *other)], folder, status=1)
    printed = printed_in(folder)
    for part in ("seed: 0 -> 7", "queue.queue_noise_m: 1000.0 -> 5.0", "force_resume=true"):
        assert part in printed, printed[-2000:]
    run = finish(folder, *other, "force_resume=true")
    steps = [row["step"] for row in read_rows(run / "metrics.jsonl")]
    assert min(steps) > 4 and steps[-1] == 6  # resumed from step 4


def test_two_processes_cannot_write_the_same_run(folder: Path) -> None:
    from geoclip.runs.run_dir import claimed

    run = finish(folder, "optim.max_steps=4")
    for path in [*(run / "checkpoints").iterdir(), run / "summary.json"]:
        path.unlink()
    with claimed(run):
        join_all([begin(folder, "optim.max_steps=4")], folder, status=1)
    assert f"geoclip: another process trains in {Path('runs') / run.name}" in printed_in(folder)


def children(parent: int, name: str = "") -> list[int]:
    """Child processes, those with `name` in their names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            called, _, rest = path.read_text().rpartition(")")
            if name in called and int(rest.split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def descendants(parent: int, command: str) -> list[psutil.Process]:
    """Descendants with `command` in their command lines."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if command in " ".join(process.cmdline()):
                found.append(process)
    return found


def readers(parent: int) -> list[psutil.Process]:
    """The processes that read data for a run: children of its fork servers."""
    servers = descendants(parent, "multiprocessing.forkserver")
    return [child for server in servers for child in server.children()]


def rank_process(launcher: int, rank: int) -> int:
    """The process of a rank of torchrun, found by its environment."""
    for process in children(launcher):
        variables = (Path("/proc") / str(process) / "environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return process
    raise AssertionError(f"torchrun has no rank {rank}")


@pytest.mark.slow
def test_ranks_and_parts_of_a_batch_give_the_same_loss_curve(folder: Path) -> None:
    """At the paper's learning rate: Adam divides by gradients that may be as small as rounding errors."""
    expected = losses(finish(folder, *CURVE))
    assert len(expected) == 50 and len(set(expected)) > 40
    parts = losses(finish(folder, *CURVE, "runs_dir=parts", "compute.accumulation=4"))
    ranks = losses(finish_ranks(folder, 2, *CURVE, "runs_dir=ranks", "compute.accumulation=2"))
    assert parts == pytest.approx(expected, abs=1e-5)
    assert ranks == pytest.approx(expected, abs=1e-5)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_ends_with_all_metrics_if_wandb_dies_or_hangs(
    folder: Path, expected: dict[str, Any], number: signal.Signals
) -> None:
    process = begin(folder, "logger=wandb", "logger.patience_s=2")
    assert process.pid is not None
    found = wait_until(lambda: descendants(process.pid or 0, "wandb-core"), alive=process.is_alive)
    for victim in found:
        victim.send_signal(number)
    process.join(90)
    printed = (folder / "printed.txt").read_text()
    assert process.exitcode == 0, printed[-3000:]
    assert "Traceback" not in printed
    assert not any(map(is_alive, found))
    assert outcome(run_in(folder))["rows"] == expected["rows"]
    # a service that was killed early has written nothing
    assert "wandb sync" in printed or not list(run_in(folder).glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_wandb_offline_has_every_row_and_the_revision(folder: Path) -> None:
    run = finish(folder, "logger=wandb", "logger.mode=offline", "logger.patience_s=120", "optim.max_steps=12")
    expected: dict[int, set[str]] = {}
    for row in read_rows(run / "metrics.jsonl"):
        names = {f"{row['kind']}/{key}" for key in row.keys() - {"kind", "step"}}
        expected.setdefault(row["step"], set()).update(names)
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    history = wandb_history(log)
    assert history.keys() == expected.keys()
    for step, names in expected.items():
        found = {"/".join(name.split("/")[:2]) for name in history[step]}
        assert names - {"skipped/reasons"} <= found, step
    settings = {
        item.key: json.loads(item.value_json)
        for record in records(log)
        if record.HasField("run")
        for item in record.run.config.update
    }
    assert settings["git_revision"] == git_revision()
    assert not any(record.run.git.commit for record in records(log) if record.HasField("run"))


ENDLESS = ("optim.max_steps=5000", "optim.epochs=50000")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("happens", "ranks"), [("shards removed", 1), ("reader killed", 2), ("reader stopped", 1)])
def test_readers_that_fail_end_the_run_with_shard_and_sample(
    folder: Path, data: Path, happens: str, ranks: int
) -> None:
    (folder / "shards").unlink()
    shutil.copytree(data / "shards", folder / "shards")
    patience = f"compute.timeout_minutes={0.1 if happens == 'reader stopped' else 5}"
    processes = begin_ranks(folder, ranks, "train", *SMALL, *ENDLESS, "compute.workers=1", patience)
    wait_for_checkpoint(folder, processes)
    started = [one for process in processes for one in psutil.Process(process.pid).children(recursive=True)]
    match happens:
        case "shards removed":
            for path in (folder / "shards" / "train").glob("*.tar"):
                path.unlink()
        case "reader killed":
            readers(processes[-1].pid or 0)[-1].kill()
        case "reader stopped":
            readers(processes[-1].pid or 0)[-1].suspend()
        case _:
            raise ValueError(happens)
    for process in processes:
        process.join(90)
    printed = printed_in(folder)
    assert all(process.exitcode for process in processes)
    assert re.search(r"geoclip: .*00000\d\.tar, sample \S+", printed), printed
    assert "Traceback" not in printed
    assert not psutil.wait_procs(started, timeout=30)[1]


@needs_proc
@pytest.mark.slow
def test_a_rank_that_dies_is_restarted_and_the_run_ends_the_same(folder: Path) -> None:
    finish_ranks(folder, 2, "runs_dir=undisturbed")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m")
    process = start_module(folder, *torchrun, "geoclip.train", *SMALL, "runs_dir=killed")
    wait_until(lambda: list(folder.glob("killed/*/checkpoints/step-*")), alive=lambda: process.poll() is None)
    os.kill(rank_process(process.pid, 1), signal.SIGKILL)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    assert "resumes from step" in printed
    killed = run_in(folder, "runs_dir=killed")
    assert outcome(killed) == outcome(run_in(folder, "runs_dir=undisturbed"))
    assert (killed / "logs" / "rank1.log").is_file()


@pytest.mark.slow
def test_a_stop_signal_to_one_rank_stops_all_at_the_same_step(folder: Path) -> None:
    processes = begin_ranks(folder, 2, "train", *SMALL, *ENDLESS)
    wait_for_checkpoint(folder, processes)
    os.kill(processes[1].pid or 0, signal.SIGTERM)
    join_all(processes, folder, status=RESUMABLE)
    logs = [(run_in(folder) / "logs" / f"rank{rank}.log").read_text() for rank in range(2)]
    steps = [re.findall(r"stopped by (.+) after step (\d+)", log) for log in logs]
    assert steps[1][0][0] == "SIGTERM"
    assert steps[0][0][1] == steps[1][0][1]
    assert list(run_in(folder).glob(f"checkpoints/step-{int(steps[0][0][1]):08d}.safetensors"))


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_and_is_named(folder: Path) -> None:
    processes = begin_ranks(folder, 2, "train", *SMALL, *ENDLESS, "compute.timeout_minutes=0.1")
    wait_for_checkpoint(folder, processes)
    os.kill(processes[1].pid or 0, signal.SIGSTOP)
    processes[0].join(60)
    kill(processes[1])
    log = (run_in(folder) / "logs" / "rank0.log").read_text()
    assert processes[0].exitcode, log
    assert re.search(r"rank 1 on \S+ \(at step \d+", log), log
