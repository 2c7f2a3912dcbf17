"""Invalid commands end in a sentence with status 1 or 2, never in a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from geoclip import train
from geoclip.cli.app import os_error_sentence, require_rendezvous, run_entry_point, world_size_from_environment
from geoclip.config import ConfigError, TrainConfig
from geoclip.distributed import device_problem, initialise
from geoclip.errors import GeoclipError
from tests.commands import REPOSITORY, environment

SMALL = (
    *("data=mp16", "encoder=resnet_tiny", "gallery=csv", "gallery.path=gallery.csv", "optim.batch_size=4"),
    *("optim.epochs=1", "queue.size=8", "data.streams=2", "compute.workers=0", "logger.mode=disabled"),
)
TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def run(folder: Path, *arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Callable[..., Any]) -> Path:
    tiny_shards([6, 4])
    tiny_shards([5], split="val")
    (tmp_path / "gallery.csv").write_text("LAT,LON\n1,2\n3,4\n")
    (tmp_path / "file").write_text("")
    return tmp_path


def test_a_folder_that_cannot_be_written_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["geoclip.train", *SMALL, f"data.root={folder}/shards", "runs_dir=file/runs"])
    try:
        with pytest.raises(SystemExit, match="file/runs"):
            run_entry_point("train", TrainConfig, train.main)
    finally:
        HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_help_needs_no_encoding(tmp_path: Path, variables: dict[str, str]) -> None:
    done = run(tmp_path, "geoclip.embed", "--help", **variables)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    done.stdout.decode("ascii")


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    name = b"caf\xe9 (1)\x1b[31m.jpg"
    done = run(tmp_path, "geoclip.predict", b"image=" + name)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"caf\\udce9 (1)\\x1b[31m.jpg" in done.stderr and b"\x1b" not in done.stderr


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "geoclip.train", "--help"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        printed = process.stderr.read()
        assert process.wait(timeout=60) == 141 and printed == b""


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2"),
        ({"RANK": "1"}, "RANK=1"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "http"}, "MASTER_PORT"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a"}, "MASTER_PORT"),
    ],
)
def test_invalid_or_missing_variables_of_torchrun_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun") as refused:
        require_rendezvous(world_size_from_environment())
    assert named in str(refused.value)


def test_an_unknown_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(TORCHRUN, ("2", "0", "0", "no-such-host.invalid", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(GeoclipError, match=r"no-such-host\.invalid"):
        initialise("cpu", size=2, timeout_minutes=0.02)


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_missing_device_is_named(device: str) -> None:
    assert device in device_problem(device)
    with pytest.raises(GeoclipError, match=device):
        initialise(device)
    assert not device_problem("cpu") and not device_problem("auto")


def test_the_path_of_a_system_error_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mistakes: list[Callable[[], object]] = [
        (tmp_path / "file" / "x").read_text,
        (tmp_path / "absent").read_text,
        tmp_path.read_text,
        lambda: (tmp_path / ("x" * 300)).write_text(""),
        lambda: (tmp_path / "file").mkdir(),
    ]
    for mistake in mistakes:
        with pytest.raises(OSError, match=str(tmp_path)) as refused:
            mistake()
        assert str(tmp_path) in os_error_sentence(refused.value)
    with pytest.raises(OSError, match="a bug"):
        os_error_sentence(OSError("a bug"))
