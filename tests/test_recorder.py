"""metrics.jsonl is whole, whatever becomes of wandb."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from geoclip.recorder import Recorder, WandbMirror, mirror_study, read_rows

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


def written(log: Path, words: bytes) -> bool:
    """Whether wandb's log comes to hold the words: its own process may write them just after `finish`."""
    end = time.monotonic() + PATIENCE_S
    while not (found := words in log.read_bytes()) and time.monotonic() < end:
        time.sleep(0.1)
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


def test_wandb_offline_holds_the_run(tmp_path: Path) -> None:
    with Recorder(tmp_path / "metrics.jsonl", mirror=mirror(tmp_path)) as recorder:
        recorder.record("train", 1, loss=0.25)
        recorder.record("val", 1, accuracy_percent={"25": 50.0})
    (run,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert written(run, b"accuracy_percent")


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
    assert written(log, b"scales")


def test_a_run_goes_on_without_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = mirror(tmp_path, project="no/such:project")
    with Recorder(tmp_path / "metrics.jsonl", mirror=broken) as recorder:
        for step in range(50):
            recorder.record("train", step, loss=0.0)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 50
    assert "wandb gave up" in caplog.text


def test_a_wandb_that_hangs_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hanging = mirror(tmp_path, patience_s=0.2)
    hanging.send(lambda wandb, run: time.sleep(60))
    started_s = time.perf_counter()
    with Recorder(tmp_path / "metrics.jsonl", mirror=hanging) as recorder:
        recorder.record("train", 1, loss=0.0)
    assert time.perf_counter() - started_s < 5
    assert "left behind" in caplog.text
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.0


def test_a_run_goes_on_when_wandb_has_no_room(tmp_path: Path) -> None:
    """A small disk of its own for wandb's files; metrics.jsonl lies elsewhere."""
    disk = tmp_path / "wandb"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("only root may mount a small disk here")
    try:
        with Recorder(tmp_path / "metrics.jsonl", mirror=mirror(tmp_path, patience_s=5)) as recorder:
            for step in range(500):
                recorder.record("train", step, **{f"value{number}": step / 7 for number in range(50)})
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 500
