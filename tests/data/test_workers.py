"""Reader processes are forked from a fork server, and however one ends, the caller gets an error."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils.data import Dataset

from geoclip.data.workers import _begin, _Slot, note, read_in_processes, start_fork_server
from geoclip.errors import DataError
from tests.commands import wait_until

BAD = 5


class Numbers(Dataset[torch.Tensor]):
    """Tensors; the reader of `BAD` fails in one way."""

    def __init__(self, happens: str = "", size: int = 12) -> None:
        self.happens, self.size = happens, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> torch.Tensor:
        note("train/000003.tar", f"key{number}")
        if number == BAD:
            match self.happens:
                case "raises":
                    raise ZeroDivisionError("no such thing")
                case "vanishes":
                    Path("train/000003.tar").read_bytes()
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "stopped":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "exits":
                    os._exit(3)
                case _:
                    pass
        return torch.full((300,), number)


class Facts(Dataset[tuple[int, int, str, str]]):
    """Facts about the reading process."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> tuple[int, int, str, str]:
        return os.getpid(), os.getppid(), os.getcwd(), os.environ.get("GEOCLIP_TEST", "")


def processes_end() -> bool:
    """Whether all readers have ended, in a time that suffices on a busy machine."""
    return wait_until(lambda: not multiprocessing.active_children(), alive=lambda: True, seconds=30)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order(workers: int) -> None:
    items = list(read_in_processes(Numbers(), count=12, workers=workers))
    assert [int(item[0]) for item in items] == list(range(12))
    assert processes_end()


def test_readers_are_forked_from_a_process_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOCLIP_TEST", "here")
    with closing(read_in_processes(Facts(), count=4, workers=2)) as reading:
        _, parent, folder, variable = next(reading)
        assert parent != os.getpid()
        assert psutil.Process(parent).num_threads() == 1
        assert (folder, variable) == (str(tmp_path), "here")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("happens", "named"), [("raises", "no such thing"), ("vanishes", "No such file")])
def test_a_reader_that_fails_names_shard_and_sample(workers: int, happens: str, named: str) -> None:
    with pytest.raises(DataError, match=r"train/000003.tar.* key5") as raised:
        list(read_in_processes(Numbers(happens), count=12, workers=workers))
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)
    assert processes_end()


@pytest.mark.parametrize(("happens", "named"), [("killed", "SIGKILL"), ("exits", "status 3"), ("stopped", "SIGSTOP")])
def test_a_reader_that_dies_or_stops_names_shard_and_sample(happens: str, named: str) -> None:
    reading = read_in_processes(Numbers(happens), count=12, workers=2, timeout_s=1, limited_by="some.key")
    with pytest.raises(DataError, match=r"train/000003.tar.* key5") as raised:
        list(reading)
    assert named in str(raised.value)
    assert ("some.key" in str(raised.value)) == (happens == "stopped")
    assert processes_end()


def test_readers_ignore_signals_that_stop_a_run() -> None:
    reading = read_in_processes(Numbers(size=60), count=60, workers=2)
    items = [next(reading)]
    for process in multiprocessing.active_children():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            assert process.pid is not None
            os.kill(process.pid, number)
    time.sleep(0.1)
    assert len(items + list(reading)) == 60


def test_reading_that_is_closed_early_leaves_no_process() -> None:
    reading = read_in_processes(Numbers(size=1000), count=1000, workers=2)
    next(reading)
    assert len(multiprocessing.active_children()) == 2
    reading.close()
    assert processes_end()


def _stuck_reader(pids: Connection) -> None:
    _begin(0, slots=[_Slot()], folder=".", environment={})
    pids.send(os.getpid())
    ctypes.PyDLL(None).sleep(600)  # C code that blocks the interpreter: no Python thread runs


def _caller_of_stuck_reader(pids: Connection) -> None:
    reader = multiprocessing.get_context("fork").Process(target=_stuck_reader, args=(pids,))
    reader.start()
    reader.join(600)


def test_a_reader_inside_of_c_code_ends_with_its_caller() -> None:
    start_fork_server()
    context = multiprocessing.get_context("forkserver")
    received, sent = context.Pipe(duplex=False)
    caller = context.Process(target=_caller_of_stuck_reader, args=(sent,))
    caller.start()
    assert received.poll(60)
    reader = psutil.Process(received.recv())
    caller.kill()
    caller.join(30)
    try:
        psutil.wait_procs([reader], timeout=10)
        assert not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE
    finally:
        if reader.is_running():
            reader.kill()
