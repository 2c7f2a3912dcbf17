"""Every part of the GPU benchmark runs on small inputs on the CPU; a failed part does not stop the others."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.card import Card, GpuRow
from bench.gpu_rows import runs
from geoclip.data.assets import asset_path
from geoclip.errors import AssetError
from tests.commands import begin_ranks


class Started:
    """A command of one or more ranks, forked from a process with its imports; has the methods of `Popen` in use."""

    def __init__(self, folder: Path, command: str, *overrides: str, launcher: tuple[str, ...] = ()) -> None:
        self.args = (*launcher, command, *overrides)
        (folder / "printed.txt").touch()
        with contextlib.suppress(FileExistsError):
            (folder / "log.txt").symlink_to("printed.txt")  # where bench.gpu_rows.runs reads why a command failed
        self.processes = begin_ranks(folder, 2 if launcher else 1, command, *overrides)

    @property
    def returncode(self) -> int | None:
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else next((code for code in codes if code), 0)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        for process in self.processes:
            process.join(timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        for process in self.processes:
            os.kill(process.pid or 0, number)


COMMANDS = ("runs", "accuracy", "from_features", "two_ranks")


def small_card() -> Card:
    return Card(device=torch.device("cpu"), quick=True)


@pytest.mark.slow
def test_every_part_reports_rows_on_the_cpu(tmp_path: Path) -> None:
    try:
        asset_path("released_code")
    except AssetError as error:
        pytest.skip(str(error))
    names = [name for name in gpu.PARTS if name not in COMMANDS]
    found = gpu.measure(small_card(), names, tmp_path / "gpu.json")
    assert found["failed"] == {} and list(found["seconds"]) == names
    assert {row["part"] for row in found["rows"]} == set(names)
    by_name = {row["name"]: row["value"] for row in found["rows"]}
    assert by_name["20 deterministic steps, resumed after 10: the same bits"] == 1
    assert by_name["loss over 8 steps beside the CPU's, float32, eager"] < 1e-3
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == found["rows"]
    assert all(f"| {row['name']} |" in gpu.table(found) for row in found["rows"])


@pytest.mark.slow
def test_commands_run_as_on_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_command", Started)
    try:
        for name in ("bmng.jpg", "gallery_100k.csv"):
            asset_path(name)
    except AssetError as error:
        pytest.skip(str(error))
    found = gpu.measure(small_card(), list(COMMANDS), tmp_path / "gpu.json")
    assert found["failed"] == {}, found["failed"]
    by_name = {row["name"]: row["value"] for row in found["rows"]}
    assert by_name["a run killed and resumed, compute.deterministic=true: the same bits"] == 1
    assert by_name["two ranks on one card over gloo: their losses beside one rank's"] < 0.01


def test_a_failed_part_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(card: Card) -> None:
        card.report(GpuRow(name="before", value=1.0, unit="s"))
        raise RuntimeError("out of memory")

    def works(card: Card) -> None:
        card.report(GpuRow(name="after", value=2.0, unit="s"))

    monkeypatch.setattr(gpu, "PARTS", {"fails": fails, "works": works})
    found = gpu.measure(small_card(), ["fails", "works"], tmp_path / "gpu.json")
    assert [row["name"] for row in found["rows"]] == ["before", "after"]
    assert "out of memory" in found["failed"]["fails"] and "out of memory" in gpu.table(found)
