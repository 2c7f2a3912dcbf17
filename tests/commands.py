"""Our commands in processes of their own: by `python -m`, or forked from one that has made the imports already."""

from __future__ import annotations

import atexit
import contextlib
import os
import runpy
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
NOT_OURS = ("MP16_SHARDS", "YFCC4K_DIR", "IM2GPS3K_DIR", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
# What lives as long as the test session: the fork servers, Python's resource tracker, wandb's service.
SERVERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker", "wandb-core", "gpu_stats")
POLL_S = 0.02

# Not Python's own fork server: that one is `geoclip.data.workers`' to start, with its own imports and signal mask.
_server = forkserver.ForkServer()
_server.set_forkserver_preload(["tests.preloaded"])


def environment(**changes: str) -> dict[str, str]:
    """For `python -m geoclip.…` from any folder, without the data that this machine's user may have."""
    clean = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    return clean | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | changes


def start_module(folder: Path, *arguments: str | bytes, **variables: str) -> subprocess.Popen[str]:
    """`python -m` with these arguments; what it prints goes into one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_module(folder: Path, *arguments: str | bytes, **variables: str) -> tuple[int, str]:
    """Exit status of `python -m` with these arguments, and what it printed."""
    process = start_module(folder, *arguments, **variables)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def begin(folder: Path, command: str, *overrides: str, **variables: str) -> ForkServerProcess:
    """The command `geoclip.<command>`, forked where its imports have been made; it prints into folder/printed.txt."""
    process = ForkServerProcess(target=_run, args=(str(folder), command, overrides, environment(**variables)))
    with mock.patch.object(forkserver, "connect_to_new_process", _server.connect_to_new_process):
        process.start()
    return process


def run(folder: Path, command: str, *overrides: str, **variables: str) -> tuple[int | None, str]:
    """The same, to its end: exit status, and what it printed."""
    printed = folder / "printed.txt"
    before = printed.stat().st_size if printed.exists() else 0
    process = begin(folder, command, *overrides, **variables)
    process.join(240)
    return process.exitcode, printed.read_bytes()[before:].decode()


def finish(folder: Path, command: str, *overrides: str, **variables: str) -> str:
    """The same, to a good end: what it printed."""
    status, printed = run(folder, command, *overrides, **variables)
    assert status == 0, printed[-3000:]
    return printed


def begin_ranks(folder: Path, ranks: int, command: str, *overrides: str) -> list[ForkServerProcess]:
    """The command as torchrun would start it, once per rank."""
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
    finally:  # as Python does at the end of a program, though not of a process of `multiprocessing`
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def wait_until(found: Callable[[], Found], *, alive: Callable[[], bool], seconds: float = 120) -> Found:
    """What `found` returns once that is true.

    Raises:
        AssertionError: it was not in time, or the process that was to make it true has ended.
    """
    for _ in range(round(seconds / POLL_S)):
        if value := found():
            return value
        assert alive(), "ended before what was awaited"
        time.sleep(POLL_S)
    raise AssertionError(f"not within {seconds} s")


def left_processes() -> Iterator[psutil.Process]:
    """What this process has started and not ended, servers apart."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if not any(server in " ".join(process.cmdline()[:4]) for server in SERVERS):
                yield process


def stop_server() -> None:
    """End the fork server of this module."""
    _server._stop()  # type: ignore[attr-defined]
