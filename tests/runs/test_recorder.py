"""metrics.jsonl is complete, whatever happens to wandb."""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from geoclip.cli.app import os_error_sentence
from geoclip.prepare.shard_writing import write_tar
from geoclip.runs.metrics import Recorder, WandbRun, log_study, read_rows
from geoclip.runs.run_dir import write_json
from geoclip.system.files import write_bytes_atomic
from tests.commands import REPOSITORY, wait_until
from tests.wandb_records import is_alive, wandb_has_exit, wandb_history

PATIENCE_S = 120.0  # a busy machine starts wandb slowly


OFFLINE: dict[str, Any] = {"mode": "offline", "project": "p", "entity": None, "config": {}, "patience_s": PATIENCE_S}


def wandb_run(folder: Path, **changes: Any) -> WandbRun:
    return WandbRun(folder, **({"name": "n", "run_id": "id1"} | OFFLINE | changes))


def record_steps(folder: Path, wandb: WandbRun, steps: int, **values: float) -> None:
    """metrics.jsonl has a row for each step, whatever wandb does."""
    with Recorder(folder / "metrics.jsonl", wandb=wandb) as recorder:
        for step in range(steps):
            recorder.record("train", step, **values)
    assert len(read_rows(folder / "metrics.jsonl")) == steps


def service_of(folder: Path) -> psutil.Process:
    """wandb's service process, once it writes the run in this folder."""

    def started() -> list[psutil.Process]:
        written = list(folder.glob("wandb/offline-run-*/*.wandb"))
        return [
            one
            for one in psutil.Process().children(recursive=True)
            if written and one.is_running() and "wandb-core" in one.name()
        ]

    return wait_until(started, alive=lambda: True, seconds=PATIENCE_S)[0]


def test_a_resumed_run_drops_the_rows_that_it_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path) as recorder:
        for step in (10, 20, 30):
            recorder.record("train", step, loss=1.0)
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # of a killed process
    with Recorder(path, step=20) as recorder:
        recorder.record("train", 30, loss=0.5)
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [(10, 1.0), (20, 1.0), (30, 0.5)]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk, writing more is an error that names no file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def record(path: Path) -> None:
        recorder = Recorder(path)
        try:
            recorder.record("train", 1, text="x" * 5000)
        finally:
            with contextlib.suppress(OSError):
                recorder.__exit__(None, None, None)

    writers: dict[str, Callable[[Path], object]] = {
        "a.json": lambda path: write_json(path, "x" * 5000),
        "b.png": lambda path: write_bytes_atomic(path, b"x" * 5000),
        "c.tar": lambda path: write_tar(path, [{"__key__": "a", "txt": b"x" * 5000}]),
        "metrics.jsonl": record,
    }
    for name, write in writers.items():
        with pytest.raises(OSError) as refused, files_of_at_most(1000):  # noqa: PT011 -- its errno is tested
            write(tmp_path / name)
        assert refused.value.errno == errno.EFBIG
        assert str(tmp_path / name) in os_error_sentence(refused.value)


def test_an_error_that_names_no_file_names_the_key_of_the_output_folder() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "root=data/new" in os_error_sentence(full, {"output": "", "root": "data/new", "runs_dir": "runs"})


def test_wandb_has_the_rows_of_metrics_jsonl(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "map.png")
    with Recorder(tmp_path / "metrics.jsonl", wandb=wandb_run(tmp_path)) as recorder:
        for step in (1, 2):
            recorder.record("train", step, loss=0.25 * step)
        recorder.record("val", 2, accuracy_percent={"25": 50.0})
        recorder.picture("map", tmp_path / "map.png", 2)
        recorder.table("validation", ["within 25 km"], [[50.0]], 2)
        recorder.record("skipped", 2, total=3)
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    history = wandb_history(log)
    assert history[1] == {"train/loss": 0.25}
    expected = {"train/loss": 0.5, "val/accuracy_percent/25": 50.0, "skipped/total": 3}
    assert {key: history[2].get(key) for key in expected} == expected
    assert {key.partition("/")[0] for key in history[2]} >= {"map", "validation"}
    assert set(history) == {1, 2}
    assert wandb_has_exit(log)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_wandb_that_dies_or_stops_ends_with_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    wandb = wandb_run(tmp_path, patience_s=1)
    service = service_of(tmp_path)
    service.send_signal(number)
    record_steps(tmp_path, wandb, 100, loss=0.0)
    assert not is_alive(service)
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert f"wandb sync {folder}" in caplog.text
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


def test_a_killed_run_leaves_no_wandb_process(tmp_path: Path) -> None:
    """wandb's file is complete, and its processes end by themselves."""
    code = (
        "import sys, time; from pathlib import Path; from tests.runs.test_recorder import wandb_run\n"
        "wandb_run(Path(sys.argv[1])).log({'train/loss': 0.5}, 1)\n"
        "time.sleep(600)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    try:
        service_of(tmp_path)
        started = psutil.Process(run.pid).children(recursive=True)
    finally:
        run.kill()
        run.wait(timeout=30)
    _, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert not alive
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert wandb_history(log) == {1: {"train/loss": 0.5}}


def test_wandb_has_the_table_and_figures_of_a_study(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "swept.png")
    log_study(
        tmp_path / "study",
        [["variant", "metric", "mean", "sd"], ["base", "25", 12.5, None], ["other", "25", 15.0, 0.5]],
        [tmp_path / "swept.png"],
        **(OFFLINE | {"name": "scales"}),
    )
    (run,) = (tmp_path / "study" / "wandb").glob("offline-run-*-study-scales")
    (table,) = run.rglob("results_*.table.json")
    assert json.loads(table.read_text())["data"] == [["base", "25", 12.5, None], ["other", "25", 15.0, 0.5]]
    (picture,) = run.rglob("swept_*.png")
    assert Image.open(picture).size == (3, 2)
    (log,) = run.glob("*.wandb")
    assert wandb_has_exit(log)


def test_a_run_continues_without_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_steps(tmp_path, wandb_run(tmp_path, project="no/such:project"), 50, loss=0.0)
    assert "no/such:project" in caplog.text


def test_a_run_continues_on_a_full_disk_of_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A small disk for wandb's files; metrics.jsonl is on another."""
    disk = tmp_path / "wandb"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk here")
    try:
        values = {f"value{number}": number / 7 for number in range(50)}
        record_steps(tmp_path, wandb_run(tmp_path, patience_s=5), 500, **values)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert "wandb sync" in caplog.text


def test_rows_after_an_invalid_line_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = b'{"kind": "train", "step": 1, "loss": 0.5}\n'
    for bad in (b'{"kind": \xff\n', b"[1]\n", b"null\n", b'{"kind": "train", "step": "x"}\n'):
        path.write_bytes(good + bad + good)
        assert [row["step"] for row in read_rows(path)] == [1]
