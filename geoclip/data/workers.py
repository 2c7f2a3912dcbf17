"""Reader processes: how they start, how they report what they read, and how they end.

A fork server starts them: a process without threads that has imported what they need, so that nothing is forked from
the training process, and a reader starts in milliseconds. The caller waits for a reader with a bound, whatever state
it is in: an item is fetched by a thread, because the data loader itself can wait without one (for a message of which
half has arrived, or for a stopped process to hand over a file descriptor).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from geoclip.errors import DataError, GeoclipError
from geoclip.system.processes import STOP_SIGNALS, is_stopped, stop_signals_blocked

T = TypeVar("T")

TIMEOUT_S = 1800.0
LIMIT = "compute.timeout_minutes"  # what decides it in training and feature extraction
STARTING_S = 120.0  # at least so long may a reader take to its first sample, imports on a busy machine included
POLL_S = 0.25
# What readers use, and what a command imports at its top, which each of them runs again.
PRELOADED = (
    *("geoclip.data.stream", "geoclip.data.on_device", "geoclip.prepare.shard_building"),
    *("geoclip.cli.app", "geoclip.cli.sweep", "geoclip.data.frozen"),
)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CAUSES = {
    signal.SIGKILL: "; is the machine out of memory? Lower the number of workers",
    signal.SIGBUS: "; is /dev/shm full? Enlarge it (docker run --shm-size), or lower the number of workers",
}


class _Slot(ctypes.Structure):
    """What a reader is at, in memory that the caller can read whatever becomes of the reader."""

    _fields_ = (("notes", ctypes.c_long), ("finished", ctypes.c_long), ("at", ctypes.c_char * 500))


_slot = _Slot()  # this process's own; a reader's is shared with the process that started it


def note(shard: str, sample: str | int = "") -> None:
    """Record what this process reads from now on: it is in the message should the process fail, die or stop."""
    at = f"{shard}, sample {sample}" if sample != "" else shard
    _slot.at = at.encode("utf-8", "replace")[:499]
    _slot.notes += 1


def read_in_processes(
    dataset: Dataset[T],
    *,
    count: int,
    workers: int,
    timeout_s: float = TIMEOUT_S,
    limited_by: str = "",
    prefetch: int = 2,
) -> Generator[T, None, None]:
    """The first `count` items of a dataset, in order, read by other processes.

    Args:
        dataset: picklable; an IterableDataset divides itself, equally, over the workers. It calls `note`.
        count: items, over all workers.
        workers: processes; 0 reads here.
        timeout_s: a reader that makes no progress for so long ends the reading.
        limited_by: the key that decides it.
        prefetch: items that a worker reads ahead.

    Raises:
        DataError: a reader failed, was killed or does not proceed; the message names shard and sample.
        GeoclipError: what the dataset raised.
    """
    guarded: _GuardedStream[T] | _GuardedItems[T] = (
        _GuardedStream(dataset) if isinstance(dataset, IterableDataset) else _GuardedItems(dataset)
    )
    if workers == 0:
        for item in islice(guarded, count):
            yield _result(item)
        return
    readers: _Readers[T] = _Readers(guarded, workers, timeout_s, limited_by, prefetch)
    try:
        for number in range(count):
            yield _result(readers.item(number))
    finally:
        readers.close()


def start_fork_server() -> None:
    """Start the process that readers are forked from, unless it runs; returns before its imports are done."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        with stop_signals_blocked():  # readers work on, so that the last step gets its batch
            resource_tracker.ensure_running()
            with stop_signals_blocked():  # the line above has unblocked some
                forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@dataclass(kw_only=True, slots=True, frozen=True)
class _Fault:
    """How a reader failed, on its way to the caller: an exception would arrive as a traceback in a string."""

    error: GeoclipError
    trace: str


def _fault(error: Exception) -> _Fault:
    if not isinstance(error, GeoclipError):
        at = _slot.at.decode("utf-8", "replace") or "before the first sample"
        reason = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        error = DataError(f"reading failed at {at}: {reason}; the same command resumes once this is fixed")
    return _Fault(error=error, trace=traceback.format_exc())


def _result(item: T | _Fault) -> T:
    if isinstance(item, _Fault):
        raise item.error from RuntimeError(f"in a reader process:\n{item.trace}")  # for the run's log
    return item


class _GuardedItems(Dataset["T | _Fault"], Generic[T]):
    """A dataset whose exceptions are items."""

    def __init__(self, dataset: Dataset[T]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> T | _Fault:
        try:
            return self.dataset[number]
        except Exception as error:
            return _fault(error)

    def __iter__(self) -> Iterator[T | _Fault]:
        return (self[number] for number in range(len(self)))


class _GuardedStream(IterableDataset["T | _Fault"], Generic[T]):
    """A stream whose exception is its last item."""

    def __init__(self, dataset: IterableDataset[T]) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[T | _Fault]:
        try:
            yield from self.dataset
        except Exception as error:
            yield _fault(error)
        _slot.finished = 1


class _RecordingContext(ForkServerContext):
    """The fork server's context, which keeps the processes that are started through it."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[ForkServerProcess] = []
        self.closed = False

    def Process(self, *args: Any, **how: Any) -> ForkServerProcess:  # type: ignore[override]
        """A process that is kept in `started`.

        Raises:
            RuntimeError: the context is closed.
        """
        if self.closed:
            raise RuntimeError("closed")
        process = ForkServerProcess(*args, **how)
        self.started.append(process)
        return process

    def kill(self) -> None:
        """End them, stopped ones too."""
        self.closed = True
        for process in self.started:
            if process.pid is not None:
                process.kill()


class _Readers(Generic[T]):
    """A data loader with its processes, and the thread that fetches its items."""

    def __init__(
        self, dataset: Dataset[T | _Fault], workers: int, timeout_s: float, limited_by: str, prefetch: int
    ) -> None:
        start_fork_server()
        self.timeout_s, self.limited_by = timeout_s, limited_by
        self.context = _RecordingContext()
        self.slots = self.context.RawArray(_Slot, workers)
        self.loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=prefetch,
            multiprocessing_context=self.context,
            worker_init_fn=partial(_begin, slots=self.slots, folder=os.getcwd(), environment=dict(os.environ)),
            generator=torch.Generator(),  # not the global one, whose state is the caller's
        )
        self.fetched: queue.Queue[T | _Fault | Exception] = queue.Queue(maxsize=1)
        self.complete = False
        self.thread = threading.Thread(target=self._fetch, daemon=True, name="readers")
        atexit.register(self.context.kill)  # or multiprocessing's own handler would wait for a stopped one
        self.thread.start()

    def item(self, number: int) -> T | _Fault:
        """The item with this number; they are asked for in order.

        Raises:
            DataError: it cannot come.
        """
        awaited = number % len(self.slots)
        notes, idle_s = -1, 0.0
        while True:
            try:
                item = self.fetched.get(timeout=POLL_S)
            except queue.Empty:
                idle_s += POLL_S  # and no clock, which runs on while a scheduler has stopped all of the run
            else:
                if isinstance(item, Exception):
                    raise DataError(self._why_broken(item)) from item
                return item
            if dead := self._death():
                raise DataError(dead)
            if self.slots[awaited].notes != notes:
                notes, idle_s = self.slots[awaited].notes, 0.0
            if idle_s > (self.timeout_s if notes else max(self.timeout_s, STARTING_S)):
                raise DataError(self._why_stalled(awaited))

    def close(self) -> None:
        """End the processes; the thread ends by itself."""
        self.context.kill()
        atexit.unregister(self.context.kill)
        self.thread.join(timeout=1)
        self.context.kill()  # one that was being started

    def _fetch(self) -> None:
        try:
            for item in self.loader:
                self._offer(item)
                if self.context.closed:
                    return
        except Exception as error:
            self._offer(error)

    def _offer(self, item: T | _Fault | Exception) -> None:
        while not self.context.closed:
            with contextlib.suppress(queue.Full):
                return self.fetched.put(item, timeout=POLL_S)

    def _at(self, worker: int) -> str:
        return self.slots[worker].at.decode("utf-8", "replace") or "its start"

    def _death(self) -> str:
        """What became of the first reader that is gone though it had more to read; empty if all are alive."""
        for worker, process in enumerate(self.context.started):
            if process.pid is None or self.slots[worker].finished:
                continue
            if connection.wait([process.sentinel], timeout=0):
                code = process.exitcode or 0
                killed = code < 0
                how = f"was killed by {signal.Signals(-code).name}" if killed else f"ended with status {code}"
                cause = CAUSES.get(signal.Signals(-code), "") if killed else ""
                return f"a reader process {how} at {self._at(worker)}{cause}; the same command resumes"
        return ""

    def _why_broken(self, error: Exception) -> str:
        """The data loader's own error is most often that of a reader that died."""
        with contextlib.suppress(ValueError):
            connection.wait([one.sentinel for one in self.context.started if one.pid], timeout=1)
        at = ", ".join(self._at(worker) for worker in range(len(self.slots)))
        reason = str(error).strip().splitlines()[-1:] or [repr(error)]
        return self._death() or f"the reader processes failed at {at}: {reason[0]}; the same command resumes"

    def _why_stalled(self, awaited: int) -> str:
        worker, how = awaited, "makes no progress"
        for number, process in enumerate(self.context.started):
            if process.pid and is_stopped(process.pid):
                worker, how = number, "is stopped (SIGSTOP)"
        return (
            f"a reader process {how} at {self._at(worker)}, and nothing came for {self.timeout_s / 60:g} min"
            f"{f' ({self.limited_by})' if self.limited_by else ''}; the same command resumes"
        )


def _unchanged(item: T) -> T:
    return item


def _begin(worker: int, *, slots: Any, folder: str, environment: dict[str, str]) -> None:
    """In a reader: the caller's folder and environment, one thread, and an end with the caller's."""
    global _slot
    _slot = slots[worker]
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the fork server may be the caller's
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    _end_with(parent.sentinel)
    threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Let the kernel kill this process when its parent is gone, whatever C code holds the interpreter then.

    Args:
        sentinel: the pipe whose other end the parent has open.
    """
    if sys.platform == "linux":
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _exit_after(wait: Callable[[], None]) -> None:
    """End this process when its parent is gone, also one that was gone before; other systems have this alone."""
    wait()
    os._exit(1)


Item = TypeVar("Item")
Result = TypeVar("Result")


class _Jobs(Dataset["Result"], Generic[Item, Result]):
    """The results of a function, by the number of what it is called with."""

    def __init__(self, do: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.do, self.items = do, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Result:
        return self.do(self.items[number])


def in_processes(
    do: Callable[[Item], Result], items: Sequence[Item], workers: int, timeout_s: float = TIMEOUT_S
) -> Generator[Result, None, None]:
    """`do(item)` of every item, in order.

    Args:
        do: picklable; it calls `geoclip.data.workers.note`, which distinguishes a process that stopped from a slow one.
        items: what it is called with.
        workers: processes; 1 computes here.
        timeout_s: a process that makes no progress for so long ends them all.

    Raises:
        DataError: a process failed, was killed or stopped.
        GeoclipError: what `do` raised.
    """
    workers = min(workers, len(items))
    return read_in_processes(
        _Jobs(do, items), count=len(items), workers=0 if workers <= 1 else workers, timeout_s=timeout_s
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
