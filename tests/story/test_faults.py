"""Whatever happens to a run, it ends as if nothing had happened: real processes, killed, stopped, silenced.

Runs read in their own process unless a test is about readers: to start those costs more than such a run.
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
from tests.commands import begin_ranks, start_module, wait_until
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
GONE_ON = 75
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found through /proc")
CURVE = (
    *("optim.max_steps=50", "optim.lr=3e-5", "optim.kind=adam", "compute.log_every_steps=1"),
    *("validate_every_steps=50", "compute.checkpoint_every_steps=50"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny shards and a gallery of their places."""
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
    """A working folder of one test with that data."""
    return working_folder(tmp_path, data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Any]:
    """The outcome of a run that nothing befell."""
    return outcome(finish(working_folder(tmp_path_factory.mktemp("whole"), data)))


def begin(folder: Path, *arguments: str) -> ForkServerProcess:
    return commands.begin(folder, "train", *SMALL, *arguments)


def finish(folder: Path, *arguments: str) -> Path:
    commands.finish(folder, "train", *SMALL, *arguments)
    return run_in(folder, *arguments)


def finish_ranks(folder: Path, ranks: int, *arguments: str) -> Path:
    processes = begin_ranks(folder, ranks, "train", *SMALL, *arguments)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * ranks, printed_in(folder)
    return run_in(folder, *arguments)


def printed_in(folder: Path) -> str:
    return (folder / "printed.txt").read_text()


def first_checkpoint(folder: Path, processes: list[ForkServerProcess], runs: str = "runs") -> None:
    """Wait until the run has written one, while all of its processes live."""
    wait_until(
        lambda: list(folder.glob(f"{runs}/*/checkpoints/step-*")),
        alive=lambda: all(process.is_alive() for process in processes),
    )


def run_in(folder: Path, *arguments: str) -> Path:
    runs = next((one.partition("=")[2] for one in arguments if one.startswith("runs_dir=")), "runs")
    (run,) = (folder / runs).glob("fault-*")
    return run


def outcome(run: Path) -> dict[str, Any]:
    """All that must be the same bit for bit: the newest checkpoint, the best, and every metric."""
    told: dict[str, Any] = {
        "rows": [
            {key: value for key, value in row.items() if key != "samples_per_s"}
            for row in read_rows(run / "metrics.jsonl")
        ]
    }
    for name in (f"step-{STEPS:08d}.safetensors", "best.safetensors"):
        tree = read_checkpoint(run / "checkpoints" / name)
        for part in ("model", "average", "optimizer", "queue", "counters"):
            told |= {f"{name} {part} {key}": value for key, value in flat(tree.get(part)).items()}
    return told


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
    folder: Path, whole: dict[str, Any], workers: int, kills: int
) -> None:
    rng, reading = random.Random(4), f"compute.workers={workers}"
    for after in sorted(rng.sample(range(STEPS // 2), kills)):  # long before its end
        process = begin(folder, reading)
        wait_until(lambda after=after: last_step(folder) >= after, alive=process.is_alive)  # type: ignore[misc]
        process.join(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, printed_in(folder)
    assert outcome(finish(folder, reading)) == whole
    assert not list(run_in(folder).rglob("*.partial"))


def last_step(folder: Path) -> int:
    """The last that a run in this folder has recorded; 0: none yet."""
    rows = [row for path in folder.glob("runs/fault-*/metrics.jsonl") for row in read_rows(path)]
    return max((int(row["step"]) for row in rows), default=0)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    folder: Path, whole: dict[str, Any], number: signal.Signals
) -> None:
    workers = "compute.workers=1" if number == signal.SIGTERM else "compute.workers=0"
    process = begin(folder, workers)
    first_checkpoint(folder, [process])
    assert process.pid is not None
    for one in (*children(process.pid), process.pid):  # as schedulers do, readers among them
        os.kill(one, number)
    process.join(60)
    assert process.exitcode == (130 if number == signal.SIGINT else GONE_ON), printed_in(folder)
    run = run_in(folder)
    said = (run / "logs" / "rank0.log").read_text()
    step = int(re.findall(rf"stopped by {number.name} after step (\d+)", said)[-1])
    assert (run / "checkpoints" / f"step-{step:08d}.safetensors").is_file()
    assert outcome(finish(folder, workers)) == whole


def test_the_walltime_stops_it_too(folder: Path) -> None:
    process = begin(folder, "compute.max_minutes=0.001")
    process.join(60)
    assert process.exitcode == GONE_ON
    assert "stopped by compute.max_minutes after step 1" in (folder / "printed.txt").read_text()


def test_another_configuration_is_refused_with_what_differs_unless_forced(folder: Path) -> None:
    first = finish(folder, "runs_dir=first", "optim.max_steps=4")
    other = ("runs_dir=other", "seed=7", "queue.queue_noise_m=5", f"resume={first}", "optim.max_steps=6")
    process = begin(folder, *other)
    process.join(60)
    printed = (folder / "printed.txt").read_text()
    assert process.exitcode == 1
    for part in ("seed: 0 -> 7", "queue.queue_noise_m: 1000.0 -> 5.0", "force_resume=true"):
        assert part in printed, printed[-2000:]
    run = finish(folder, *other, "force_resume=true")
    assert "resumes from step 4" in (folder / "printed.txt").read_text()
    assert read_rows(run / "metrics.jsonl")[-1]["step"] == 6


def test_two_processes_do_not_write_one_run(folder: Path) -> None:
    from geoclip.runs.run_dir import claimed

    run = finish(folder, "optim.max_steps=4")
    for path in [*(run / "checkpoints").iterdir(), run / "summary.json"]:
        path.unlink()
    with claimed(run):
        process = begin(folder, "optim.max_steps=4")
        process.join(60)
    assert process.exitcode == 1
    assert f"another process trains in {Path('runs') / run.name}" in (folder / "printed.txt").read_text()


def children(parent: int, name: str = "") -> list[int]:
    """The processes that a process has begun, or those of them with `name` in their names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            called, _, rest = path.read_text().rpartition(")")
            if name in called and int(rest.split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def descendants(parent: int, command: str) -> list[psutil.Process]:
    """All that a process has begun, directly or not, with these words in their command lines."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if command in " ".join(process.cmdline()):
                found.append(process)
    return found


def readers(parent: int) -> list[psutil.Process]:
    """The processes that read data for a run, by the fork servers that they were forked from."""
    servers = descendants(parent, "multiprocessing.forkserver")
    return [child for server in servers for child in server.children()]


def rank_process(launcher: int, rank: int) -> int:
    """The process of a rank below a torchrun, by its environment."""
    for process in children(launcher):
        told = (Path("/proc") / str(process) / "environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in told:
            return process
    raise AssertionError(f"torchrun has no rank {rank}")


@pytest.mark.slow
def test_ranks_and_parts_of_a_batch_give_the_same_loss_curve(folder: Path) -> None:
    """At the paper's learning rate: Adam divides by gradients that may be as small as rounding."""
    curves = {}
    for parts in (1, 2, 4):
        run = finish(folder, *CURVE, f"runs_dir=parts{parts}", f"compute.accumulation={parts}")
        curves[f"{parts} parts"] = losses(run)
    for ranks in (2, 4):
        run = finish_ranks(folder, ranks, *CURVE, f"runs_dir=ranks{ranks}")
        curves[f"{ranks} ranks"] = losses(run)
    expected = curves["1 parts"]
    assert len(expected) == 50 and len(set(expected)) > 40
    for name, curve in curves.items():
        assert curve == pytest.approx(expected, abs=1e-5), name


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_whatever_befalls_wandb_the_run_ends_with_its_own_metrics(
    folder: Path, whole: dict[str, Any], number: signal.Signals
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
    assert outcome(run_in(folder))["rows"] == whole["rows"]
    # found early, it may not have written anything yet
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
    first_checkpoint(folder, processes)
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
    finish_ranks(folder, 2, "runs_dir=whole")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m")
    process = start_module(folder, *torchrun, "geoclip.train", *SMALL, "runs_dir=killed")
    wait_until(lambda: list(folder.glob("killed/*/checkpoints/step-*")), alive=lambda: process.poll() is None)
    os.kill(rank_process(process.pid, 1), signal.SIGKILL)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    assert "resumes from step" in printed
    killed = run_in(folder, "runs_dir=killed")
    assert outcome(killed) == outcome(run_in(folder, "runs_dir=whole"))
    assert (killed / "logs" / "rank1.log").is_file()


@pytest.mark.slow
def test_one_rank_is_asked_to_stop_and_all_stop_at_the_same_step(folder: Path) -> None:
    processes = begin_ranks(folder, 2, "train", *SMALL, *ENDLESS)
    first_checkpoint(folder, processes)
    os.kill(processes[1].pid or 0, signal.SIGTERM)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [GONE_ON] * 2, printed_in(folder)
    logs = [(run_in(folder) / "logs" / f"rank{rank}.log").read_text() for rank in range(2)]
    steps = [re.findall(r"stopped by (.+) after step (\d+)", said) for said in logs]
    assert steps[0][0][0] == "another rank" and steps[1][0][0] == "SIGTERM"
    assert steps[0][0][1] == steps[1][0][1]
    assert list(run_in(folder).glob(f"checkpoints/step-{int(steps[0][0][1]):08d}.safetensors"))


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_and_is_named(folder: Path) -> None:
    processes = begin_ranks(folder, 2, "train", *SMALL, *ENDLESS, "compute.timeout_minutes=0.1")
    first_checkpoint(folder, processes)
    os.kill(processes[1].pid or 0, signal.SIGSTOP)
    processes[0].join(60)
    processes[1].kill()
    processes[1].join()
    said = (run_in(folder) / "logs" / "rank0.log").read_text()
    assert processes[0].exitcode, said
    assert re.search(r"cannot be ended: no answer from rank 1 on \S+ \(at step \d+", said), said
