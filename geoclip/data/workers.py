"""Reader processes: start, progress reports, errors and end.

A fork server starts them: a process without threads that has imported their modules, so that nothing is forked from the
training process, and a reader starts in milliseconds. The caller's wait for a reader is bounded in every case: a thread
fetches the items, because the data loader itself can wait forever (for the second half of a message, or for a file
descriptor from a stopped process).
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
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from geoclip.errors import DataError, GeoclipError
from geoclip.system.processes import STOP_SIGNALS, is_stopped, stop_signals_blocked

T = TypeVar("T")

TIMEOUT_S = 1800.0
LIMIT = "compute.timeout_minutes"  # the key of the limit in training and feature extraction
STARTING_S = 120.0  # minimal limit until the first sample, which includes imports on a busy machine
POLL_S = 0.25
# Modules of readers, and of the commands' entry points, which each reader imports again.
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
    """A reader's progress, in shared memory, so that the caller can read it after the reader has died."""

    _fields_ = (("notes", ctypes.c_long), ("finished", ctypes.c_long), ("at", ctypes.c_char * 500))


_slot = _Slot()  # of this process; a reader shares its own with the caller


def note(shard: str, sample: str | int = "") -> None:
    """Record what this process reads next; error messages contain it if the process fails, dies or stops."""
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
        dataset: picklable; an IterableDataset divides its items equally over the workers. It calls `note`.
        count: items, over all workers.
        workers: processes; 0: this process.
        timeout_s: limit for a reader without progress.
        limited_by: the key of that limit.
        prefetch: items that a worker reads ahead.

    Raises:
        DataError: a reader failed, was killed or makes no progress; the message has shard and sample.
        GeoclipError: raised by the dataset.
    """
    guarded = _Guarded(dataset)
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
    """Start the process that forks readers, unless it runs; returns before its imports are done."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        with stop_signals_blocked():  # readers continue, so that the last step gets its batch
            resource_tracker.ensure_running()
            with stop_signals_blocked():  # the line above unblocks some
                forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@dataclass(kw_only=True, slots=True, frozen=True)
class _Fault:
    """The error of a reader, sent as an item: a raised exception would arrive as a traceback in a string."""

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
        raise item.error from RuntimeError(f"in a reader process:\n{item.trace}")  # the run's log shows it
    return item


class _Guarded(IterableDataset["T | _Fault"], Generic[T]):
    """This worker's items of a dataset; an exception becomes the last item."""

    def __init__(self, dataset: Dataset[T]) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[T | _Fault]:
        try:
            if isinstance(self.dataset, IterableDataset):
                yield from self.dataset
            else:
                worker = get_worker_info()
                first, step = (worker.id, worker.num_workers) if worker else (0, 1)
                for number in range(first, len(self.dataset), step):  # type: ignore[arg-type]
                    yield self.dataset[number]
        except Exception as error:
            yield _fault(error)
        _slot.finished = 1


class _RecordingContext(ForkServerContext):
    """The fork server's context, with a list of its processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[ForkServerProcess] = []
        self.closed = False

    def Process(self, *args: Any, **how: Any) -> ForkServerProcess:  # type: ignore[override]
        """A process, added to `started`. Raises RuntimeError after `kill`."""
        if self.closed:
            raise RuntimeError("closed")
        process = ForkServerProcess(*args, **how)
        self.started.append(process)
        return process

    def kill(self) -> None:
        """Kill all processes, stopped ones too."""
        self.closed = True
        for process in self.started:
            if process.pid is not None:
                process.kill()


class _Readers(Generic[T]):
    """A data loader with its processes, and a thread that fetches its items."""

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
            generator=torch.Generator(),  # instead of the global one, whose state belongs to the caller
        )
        self.fetched: queue.Queue[T | _Fault | Exception] = queue.Queue(maxsize=1)
        self.complete = False
        self.thread = threading.Thread(target=self._fetch, daemon=True, name="readers")
        atexit.register(self.context.kill)  # multiprocessing's own handler would wait for stopped ones
        self.thread.start()

    def item(self, number: int) -> T | _Fault:
        """The item with this number; called in order. Raises DataError if its reader cannot give it."""
        awaited = number % len(self.slots)
        notes, idle_s = -1, 0.0
        while True:
            try:
                item = self.fetched.get(timeout=POLL_S)
            except queue.Empty:
                idle_s += POLL_S  # a clock would also count time in which a scheduler has stopped the run
            else:
                if isinstance(item, Exception):
                    raise DataError(self._failure(item)) from item
                return item
            if death := self._death():
                raise DataError(death)
            if self.slots[awaited].notes != notes:
                notes, idle_s = self.slots[awaited].notes, 0.0
            if idle_s > (self.timeout_s if notes else max(self.timeout_s, STARTING_S)):
                raise DataError(self._stall(awaited))

    def close(self) -> None:
        """Kill the processes; the thread then ends."""
        self.context.kill()
        atexit.unregister(self.context.kill)
        self.thread.join(timeout=1)
        self.context.kill()  # a process that was just being started

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
        """How the first reader that is dead before its last item ended; empty if there is none."""
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

    def _failure(self, error: Exception) -> str:
        """The cause of a data loader's error: most often a reader that died."""
        with contextlib.suppress(ValueError):
            connection.wait([one.sentinel for one in self.context.started if one.pid], timeout=1)
        at = ", ".join(self._at(worker) for worker in range(len(self.slots)))
        reason = str(error).strip().splitlines()[-1:] or [repr(error)]
        return self._death() or f"the reader processes failed at {at}: {reason[0]}; the same command resumes"

    def _stall(self, awaited: int) -> str:
        worker, how = awaited, "makes no progress"
        for number, process in enumerate(self.context.started):
            if process.pid and is_stopped(process.pid):
                worker, how = number, "is stopped (SIGSTOP)"
        return (
            f"a reader process {how} at {self._at(worker)}; no data for {self.timeout_s / 60:g} min"
            f"{f' ({self.limited_by})' if self.limited_by else ''}; the same command resumes"
        )


def _unchanged(item: T) -> T:
    return item


def _begin(worker: int, *, slots: Any, folder: str, environment: dict[str, str]) -> None:
    """Set up a reader: the caller's folder and environment, one thread, and exit when the caller ends."""
    global _slot
    _slot = slots[worker]
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the fork server may have inherited other settings
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    _end_with(parent.sentinel)
    threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Let the kernel kill this process, even inside C code, when the parent's end of the pipe closes."""
    if sys.platform == "linux":
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _exit_after(wait: Callable[[], None]) -> None:
    """Exit when the parent has ended, even before `_end_with`; the only mechanism on other systems than Linux."""
    wait()
    os._exit(1)


Item = TypeVar("Item")
Result = TypeVar("Result")


class _Jobs(Dataset["Result"], Generic[Item, Result]):
    """The results of a function for each of some items."""

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
        do: picklable; it calls `note`, which distinguishes a slow process from a stopped one.
        items: its arguments.
        workers: processes; 1: this process.
        timeout_s: limit for a process without progress.

    Raises:
        DataError: a process failed, was killed or makes no progress.
        GeoclipError: raised by `do`.
    """
    workers = min(workers, len(items))
    return read_in_processes(
        _Jobs(do, items), count=len(items), workers=0 if workers <= 1 else workers, timeout_s=timeout_s
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
