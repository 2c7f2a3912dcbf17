"""metrics.jsonl is whole, whatever becomes of wandb."""

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

import psutil
import pytest
from PIL import Image

from geoclip.cli.app import os_error_sentence
from geoclip.prepare.shard_writing import write_tar
from geoclip.runs.metrics import Recorder, WandbMirror, mirror_study, read_rows
from geoclip.runs.run_dir import write_json
from geoclip.system.files import write_bytes_atomic
from tests.commands import wait_until
from tests.wandb_records import is_alive, wandb_has_exit, wandb_history

PATIENCE_S = 120.0  # where a loaded machine starts wandb slowly


def mirror(folder: Path, **changes: object) -> WandbMirror:
    settings: dict[str, object] = {
        "mode": "offline",
        "project": "p",
        "entity": None,
        "name": "n",
        "config": {},
        "run_id": "id1",
        "patience_s": PATIENCE_S,
    }
    return WandbMirror(folder, **(settings | changes))  # type: ignore[arg-type]


def service_of(folder: Path) -> psutil.Process:
    """wandb's own process, once it writes the run in this folder."""

    def started() -> psutil.Process | None:
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "wandb-core" in one.name() and list(folder.glob("wandb/offline-run-*/*.wandb")):
                    return one
        return None

    found = wait_until(started, alive=lambda: True, seconds=PATIENCE_S)
    assert found is not None
    return found


def test_a_resumed_run_drops_the_rows_that_it_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path) as recorder:
        for step in (10, 20, 30):
            recorder.record("train", step, loss=1.0)
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # what a kill leaves behind
    with Recorder(path, step=20) as recorder:
        recorder.record("train", 30, loss=0.5)
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [(10, 1.0), (20, 1.0), (30, 0.5)]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes no more of any file, which is an error without a file's name."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_named_with_the_file(tmp_path: Path) -> None:
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


def test_a_refusal_that_names_no_file_names_the_folder_that_is_written() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "root=data/mine" in os_error_sentence(full, {"output": "", "root": "data/mine", "runs_dir": "runs"})


def test_wandb_has_the_rows_of_metrics_jsonl(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "map.png")
    with Recorder(tmp_path / "metrics.jsonl", mirror=mirror(tmp_path)) as recorder:
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
    begun = mirror(tmp_path, patience_s=1)
    service = service_of(tmp_path)
    with Recorder(tmp_path / "metrics.jsonl", mirror=begun) as recorder:
        service.send_signal(number)
        for step in range(100):
            recorder.record("train", step, loss=0.0)
    assert not is_alive(service)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 100
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert f"wandb sync {folder}" in caplog.text
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


def test_a_killed_run_leaves_no_wandb_behind(tmp_path: Path) -> None:
    """What it had written is complete, and its processes end by themselves."""
    code = (
        "import sys, time; from pathlib import Path; from tests.runs.test_recorder import mirror\n"
        "mirror(Path(sys.argv[1])).log({'train/loss': 0.5}, 1)\n"
        "time.sleep(600)"
    )
    here = Path(__file__).resolve().parents[1]
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=here)
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


def test_a_study_is_mirrored_with_its_table_and_figures(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "swept.png")
    mirror_study(
        tmp_path / "mirrored",
        [["variant", "metric", "mean", "sd"], ["base", "25", 12.5, None], ["other", "25", 15.0, 0.5]],
        [tmp_path / "swept.png"],
        mode="offline", project="p", entity=None, name="scales", config={"by": ["queue"]}, patience_s=PATIENCE_S,
    )  # fmt: skip
    (run,) = (tmp_path / "mirrored" / "wandb").glob("offline-run-*-study-scales")
    (table,) = run.rglob("results_*.table.json")
    assert json.loads(table.read_text())["data"] == [["base", "25", 12.5, None], ["other", "25", 15.0, 0.5]]
    (picture,) = run.rglob("swept_*.png")
    assert Image.open(picture).size == (3, 2)
    (log,) = run.glob("*.wandb")
    assert wandb_has_exit(log)


def test_a_run_goes_on_without_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = mirror(tmp_path, project="no/such:project")
    with Recorder(tmp_path / "metrics.jsonl", mirror=broken) as recorder:
        for step in range(50):
            recorder.record("train", step, loss=0.0)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 50
    assert "no/such:project" in caplog.text


def test_a_run_continues_on_a_full_disk_of_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A small disk of its own for wandb's files; metrics.jsonl lies elsewhere."""
    disk = tmp_path / "wandb"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk here")
    try:
        with Recorder(tmp_path / "metrics.jsonl", mirror=mirror(tmp_path, patience_s=5)) as recorder:
            for step in range(500):
                recorder.record("train", step, **{f"value{number}": step / 7 for number in range(50)})
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 500
    assert "incomplete" in caplog.text
    assert "wandb sync" in caplog.text


def test_rows_after_bytes_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = b'{"kind": "train", "step": 1, "loss": 0.5}\n'
    for bad in (b'{"kind": \xff\n', b"[1]\n", b"null\n", b'{"kind": "train", "step": "x"}\n'):
        path.write_bytes(good + bad + good)
        assert [row["step"] for row in read_rows(path)] == [1]
