"""Whatever happens to a run, it ends as if nothing had happened: real processes, killed, stopped, silenced."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from geoclip.recorder import read_rows
from geoclip.run_dir import git_revision
from geoclip.training.checkpoint import read_checkpoint
from geoclip.wandb_process import records
from tests.wandb_records import is_alive, wandb_history

STEPS = 24
SMALL = (
    *("name=fault", "data=mp16", "data.root=shards", "data.streams=4", "data.shuffle_buffer=4"),
    *("encoder.image_px=16", "encoder.stem_dim=8", "encoder.widths=[8,16]", "encoder.depths=[1,1]"),
    *("encoder.feature_dim=16", "encoder.hidden_dim=16", "location.sigmas=[1,16]", "location.frequencies=16"),
    *("location.hidden_dim=32", "location.embedding_dim=16", "queue.size=16"),
    *("optim.batch_size=8", "optim.epochs=50", f"optim.max_steps={STEPS}", "optim.warmup_steps=2"),
    *("optim.grad_clip=1", "optim.average=ema", "optim.ema_decay=0.9"),
    *("gallery=csv", "gallery.path=gallery.csv", "logger=jsonl", "validate_every_steps=4"),
    *("compute.log_every_steps=3", "compute.checkpoint_every_steps=2", "compute.keep_checkpoints=3"),
)
GONE_ON = 75
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="ranks are found through /proc"
)
CURVE = (
    *("optim.max_steps=50", "optim.lr=3e-5", "optim.kind=adam", "compute.log_every_steps=1"),
    *("compute.workers=0", "validate_every_steps=50", "compute.checkpoint_every_steps=50"),
)


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Callable[..., Any]) -> Path:
    """A working folder with tiny shards and a gallery of their places."""
    places = tiny_shards([60, 61], size_px=20).gps_deg
    tiny_shards([20], split="val", seed=1, size_px=20)
    lines = [f"{lat},{lon}" for lat, lon in places.values()]
    (tmp_path / "gallery.csv").write_text("\n".join(["LAT,LON", *lines]) + "\n")
    return tmp_path


def _train(folder: str, arguments: tuple[str, ...]) -> None:
    """`python -m geoclip.train`, where its imports have been paid for."""
    from geoclip.config import TrainConfig
    from geoclip.entry import run_entry_point
    from geoclip.train import main

    torch.set_num_threads(1)
    os.chdir(folder)
    sys.argv = ["geoclip.train", *SMALL, *arguments]
    printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    run_entry_point("train", TrainConfig, main)


def begin(folder: Path, *arguments: str) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geoclip.training.hooks", "transformers.models.resnet.modeling_resnet"])
    process = context.Process(target=_train, args=(str(folder), arguments))
    process.start()
    return process


def finish(folder: Path, *arguments: str) -> Path:
    process = begin(folder, *arguments)
    process.join(120)
    assert process.exitcode == 0, (folder / "printed.txt").read_text()[-3000:]
    return run_in(folder, *arguments)


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
        return {
            name: leaf for key, value in node.items() for name, leaf in flat(value, f"{path}/{key}").items()
        }
    if isinstance(node, list):
        return flat({str(number): value for number, value in enumerate(node)}, path)
    return {path: node}


@pytest.mark.slow
def test_killed_at_20_random_moments_it_ends_in_the_same_bits(folder: Path) -> None:
    expected = outcome(finish(folder, "runs_dir=whole"))
    started_s = time.monotonic()
    assert outcome(finish(folder, "runs_dir=again")) == expected
    seconds = time.monotonic() - started_s
    rng, kills, runs = random.Random(4), 0, 0
    while kills < 20:
        where = f"runs_dir=killed{runs}"
        for _ in range(3):
            process = begin(folder, where)
            process.join(rng.uniform(0.2, 1.0) * seconds)
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
        assert outcome(finish(folder, where)) == expected, f"run {runs}, after {kills} kills"
        assert not list(run_in(folder, where).rglob("*.partial"))
        runs += 1


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    folder: Path, number: signal.Signals
) -> None:
    expected = outcome(finish(folder, "runs_dir=whole"))
    rng = random.Random(int(number))
    for attempt in range(2):
        where = f"runs_dir=stopped{attempt}"
        process = begin(folder, where)
        deadline_s = time.monotonic() + 60
        while not list(folder.glob(f"stopped{attempt}/*/checkpoints/step-*")):
            assert process.exitcode is None and time.monotonic() < deadline_s
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        asked_s = time.monotonic()
        assert process.pid is not None
        for one in (*children(process.pid), process.pid):  # as schedulers do, the reading workers among them
            os.kill(one, number)
        process.join(30)
        assert time.monotonic() - asked_s < 30
        if process.exitcode == 0:
            continue  # it had ended
        assert process.exitcode == (130 if number == signal.SIGINT else GONE_ON)
        run = run_in(folder, where)
        said = (run / "logs" / "rank0.log").read_text()
        step = int(re.findall(rf"stopped by {number.name} after step (\d+)", said)[-1])
        assert (run / "checkpoints" / f"step-{step:08d}.safetensors").is_file()
        assert outcome(finish(folder, where)) == expected


def test_the_walltime_stops_it_too(folder: Path) -> None:
    process = begin(folder, "compute.max_minutes=0.001")
    process.join(60)
    assert process.exitcode == GONE_ON
    assert "stopped by compute.max_minutes after step 1" in (folder / "printed.txt").read_text()


def test_another_configuration_is_refused_with_what_differs_unless_forced(folder: Path) -> None:
    first = finish(folder, "runs_dir=first")
    other = (
        "runs_dir=other",
        "seed=7",
        "queue.queue_noise_m=5",
        f"resume={first}",
        f"optim.max_steps={STEPS + 2}",
    )
    process = begin(folder, *other)
    process.join(60)
    printed = (folder / "printed.txt").read_text()
    assert process.exitcode == 1
    for part in ("seed: 0 -> 7", "queue.queue_noise_m: 1000.0 -> 5.0", "force_resume=true"):
        assert part in printed, printed[-2000:]
    run = finish(folder, *other, "force_resume=true")
    assert f"resumes from step {STEPS}" in (folder / "printed.txt").read_text()
    assert read_rows(run / "metrics.jsonl")[-1]["step"] == STEPS + 2


def test_two_processes_do_not_write_one_run(folder: Path) -> None:
    from geoclip.run_dir import claimed

    run = finish(folder)
    for path in [*(run / "checkpoints").iterdir(), run / "summary.json"]:
        path.unlink()
    with claimed(run):
        process = begin(folder)
        process.join(60)
    assert process.exitcode == 1
    assert f"another process trains in {Path('runs') / run.name}" in (folder / "printed.txt").read_text()


def torchrun(folder: Path, *arguments: str, ranks: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.Popen(
        [*command, f"--max-restarts={restarts}", "-m", "geoclip.train", *SMALL, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 90) -> Any:
    deadline_s = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()[0]
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_ranks_and_parts_of_a_batch_give_the_same_loss_curve(folder: Path) -> None:
    """At the paper's learning rate: Adam divides by gradients that may be as small as rounding."""
    curves = {}
    for parts in (1, 2, 4):
        run = finish(folder, *CURVE, f"runs_dir=parts{parts}", f"compute.accumulation={parts}")
        curves[f"{parts} parts"] = losses(run)
    for ranks in (2, 4):
        process = torchrun(folder, *CURVE, f"runs_dir=ranks{ranks}", ranks=ranks)
        printed, _ = process.communicate(timeout=200)
        assert process.returncode == 0, printed
        curves[f"{ranks} ranks"] = losses(run_in(folder, f"runs_dir=ranks{ranks}"))
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
    folder: Path, number: signal.Signals
) -> None:
    expected = outcome(finish(folder, "runs_dir=whole"))["rows"]
    process = begin(folder, "logger=wandb", "logger.patience_s=2")
    assert process.pid is not None
    deadline_s = time.monotonic() + 60
    while not (found := descendants(process.pid, "wandb-core")):
        assert process.exitcode is None and time.monotonic() < deadline_s
        time.sleep(0.01)
    for victim in found:
        victim.send_signal(number)
    process.join(90)
    printed = (folder / "printed.txt").read_text()
    assert process.exitcode == 0, printed[-3000:]
    assert "Traceback" not in printed
    assert not any(map(is_alive, found))
    assert outcome(run_in(folder))["rows"] == expected
    # found early, it may not have written anything yet
    assert "wandb sync" in printed or not list(run_in(folder).glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_wandb_offline_has_every_row_and_the_revision(folder: Path) -> None:
    run = finish(folder, "logger.mode=offline", "logger.patience_s=120")
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


VANISHED = ("optim.max_steps=5000", "optim.epochs=50000", "compute.timeout_minutes=0.1")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("happens", ["shards removed", "reader killed", "reader stopped"])
def test_readers_that_fail_end_the_run_with_shard_and_sample(folder: Path, happens: str, ranks: int) -> None:
    process = torchrun(folder, *VANISHED, ranks=ranks)
    wait_for(lambda: list(folder.glob("runs/*/checkpoints/step-*")), process)
    started = psutil.Process(process.pid).children(recursive=True)
    match happens:
        case "shards removed":
            for path in (folder / "shards" / "train").glob("*.tar"):
                path.unlink()
        case "reader killed":
            readers(process.pid)[-1].kill()
        case "reader stopped":
            readers(process.pid)[-1].suspend()
        case _:
            pass
    printed, _ = process.communicate(timeout=90)
    sentences = [line for line in printed.splitlines() if line.startswith("geoclip: ")]
    assert process.returncode
    assert any(re.search(r"00000\d\.tar, sample \S+", line) for line in sentences), printed
    assert not re.search(r'File ".*/geoclip/', printed), printed  # torchrun adds a traceback of its own
    assert not psutil.wait_procs(started, timeout=30)[1]


LONGER = ("optim.max_steps=60", "compute.workers=0")


@needs_proc
@pytest.mark.slow
def test_a_rank_that_dies_is_restarted_and_the_run_ends_the_same(folder: Path) -> None:
    whole = torchrun(folder, *LONGER, "runs_dir=whole")
    printed, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, printed
    process = torchrun(folder, *LONGER, "runs_dir=killed", restarts=3)
    wait_for(lambda: list(folder.glob("killed/*/checkpoints/step-*")), process)
    os.kill(rank_process(process.pid, 1), signal.SIGKILL)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    assert "resumes from step" in printed
    rows = [
        [
            {key: value for key, value in row.items() if key != "samples_per_s"}
            for row in read_rows(run_in(folder, where) / "metrics.jsonl")
        ]
        for where in ("runs_dir=whole", "runs_dir=killed")
    ]
    assert rows[0] == rows[1]
    assert (run_in(folder, "runs_dir=killed") / "logs" / "rank1.log").is_file()


@needs_proc
@pytest.mark.slow
def test_one_rank_is_asked_to_stop_and_all_stop_at_the_same_step(folder: Path) -> None:
    process = torchrun(folder, *LONGER, "optim.max_steps=5000")
    wait_for(lambda: list(folder.glob("runs/*/checkpoints/step-*")), process)
    os.kill(rank_process(process.pid, 1), signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    logs = [(run_in(folder) / "logs" / f"rank{rank}.log").read_text() for rank in range(2)]
    steps = [re.findall(r"stopped by (.+) after step (\d+)", said) for said in logs]
    assert steps[0][0][0] == "another rank" and steps[1][0][0] == "SIGTERM", printed
    assert steps[0][0][1] == steps[1][0][1]
    assert list(run_in(folder).glob(f"checkpoints/step-{int(steps[0][0][1]):08d}.safetensors"))
    assert "exitcode  : 75" in printed


@needs_proc
@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_and_is_named(folder: Path) -> None:
    process = torchrun(folder, *LONGER, "optim.max_steps=5000", "compute.timeout_minutes=0.1")
    wait_for(lambda: list(folder.glob("runs/*/checkpoints/step-*")), process)
    victim = rank_process(process.pid, 1)
    os.kill(victim, signal.SIGSTOP)
    log = run_in(folder) / "logs" / "rank0.log"
    try:
        wait_for(lambda: "ended by" in log.read_text(), process, 60)
    finally:
        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
    said = log.read_text()
    assert re.search(r"cannot be ended: no answer from rank 1 on \S+ \(at step \d+", said), said
