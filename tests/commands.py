"""Run commands in other processes: by `python -m`, or forked from a process that has done the imports."""

from __future__ import annotations

import atexit
import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TypeVar
from unittest import mock

import psutil

Found = TypeVar("Found")

REPOSITORY = Path(__file__).resolve().parent.parent
UNSET = ("MP16_SHARDS", "YFCC4K_DIR", "IM2GPS3K_DIR", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
# These live as long as the test session: fork servers, Python's resource tracker, wandb's service.
SERVERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker", "wandb-core", "gpu_stats")
POLL_S = 0.02

# A second fork server: `geoclip.data.workers` starts Python's own, with other imports and another signal mask.
_server = forkserver.ForkServer()
_server.set_forkserver_preload(["tests.preloaded"])


def environment(**changes: str) -> dict[str, str]:
    """Variables for `python -m geoclip.…` in any folder, without the data sets and ranks of this machine's user."""
    clean = {name: value for name, value in os.environ.items() if name not in UNSET}
    return clean | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | changes


def start_module(folder: Path, *arguments: str | bytes, **variables: str) -> subprocess.Popen[str]:
    """Start `python -m` with these arguments; stdout and stderr go into one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_module(folder: Path, *arguments: str | bytes, **variables: str) -> tuple[int, str]:
    """Exit status and output of `python -m` with these arguments."""
    process = start_module(folder, *arguments, **variables)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def begin(folder: Path, command: str, *overrides: str, **variables: str) -> ForkServerProcess:
    """Start `geoclip.<command>`, forked from the warm process; it prints into folder/printed.txt."""
    process = ForkServerProcess(target=_run, args=(str(folder), command, overrides, environment(**variables)))
    with mock.patch.object(forkserver, "connect_to_new_process", _server.connect_to_new_process):
        process.start()
    return process


def run(folder: Path, command: str, *overrides: str, **variables: str) -> tuple[int | None, str]:
    """Run `geoclip.<command>` to its end: exit status and output."""
    before = len(printed_in(folder))
    process = begin(folder, command, *overrides, **variables)
    process.join(240)
    return process.exitcode, printed_in(folder)[before:]


def finish(folder: Path, command: str, *overrides: str, **variables: str) -> str:
    """Run `geoclip.<command>` to its end without an error: its output."""
    status, printed = run(folder, command, *overrides, **variables)
    assert status == 0, printed[-3000:]
    return printed


def printed_in(folder: Path) -> str:
    """The output of all forked commands in a folder."""
    path = folder / "printed.txt"
    return path.read_text() if path.exists() else ""


def join_all(processes: list[ForkServerProcess], folder: Path, status: int = 0) -> None:
    """Wait for processes, which end with this status."""
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [status] * len(processes), printed_in(folder)[-3000:]


def kill(process: ForkServerProcess) -> None:
    """Kill a running process."""
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def begin_ranks(folder: Path, ranks: int, command: str, *overrides: str) -> list[ForkServerProcess]:
    """Start the command once per rank, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        begin(
            folder, command, *overrides, WORLD_SIZE=str(ranks), RANK=str(rank), LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(ranks)
    ]  # fmt: skip


def _run(folder: str, command: str, overrides: tuple[str, ...], variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = [f"geoclip.{command}", *overrides]
    printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    try:
        runpy.run_module(f"geoclip.{command}", run_name="__main__", alter_sys=True)
    finally:  # as at the end of a program; `multiprocessing` skips this
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def wait_until(found: Callable[[], Found], *, alive: Callable[[], bool], seconds: float = 120) -> Found:
    """The first true result of `found`.

    Raises:
        AssertionError: there is none in time, or the process under test is not `alive`.
    """
    for _ in range(round(seconds / POLL_S)):
        if value := found():
            return value
        assert alive(), "the process has ended too early"
        time.sleep(POLL_S)
    raise AssertionError(f"no result within {seconds} s")


def left_processes() -> Iterator[psutil.Process]:
    """Child processes that still run, except servers."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if not any(server in " ".join(process.cmdline()[:4]) for server in SERVERS):
                yield process


def stop_server() -> None:
    """Stop the fork server of this module."""
    _server._stop()  # type: ignore[attr-defined]
