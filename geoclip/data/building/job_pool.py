"""One function over many items in processes: results in order, few ahead, and no process that outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from geoclip.errors import GeoclipError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Jobs(Dataset["Result | GeoclipError"], Generic[Item, Result]):
    """An item's result, or the error that the user can mend: raised in a worker, it would come back as a traceback."""

    def __init__(self, do: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.do, self.items = do, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Result | GeoclipError:
        try:
            return self.do(self.items[number])
        except GeoclipError as error:
            return error


def in_processes(do: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`do(item)` of every item, in order.

    Args:
        do: picklable.
        items: what it is called with.
        workers: processes; 1 computes here.

    Raises:
        GeoclipError: what `do` raised.
    """
    jobs = _Jobs(do, items)
    if workers <= 1 or len(items) <= 1:
        results: Iterator[Result | GeoclipError] = (jobs[number] for number in range(len(items)))
    else:
        results = iter(
            DataLoader(
                jobs,
                batch_size=None,
                num_workers=min(workers, len(items)),
                collate_fn=_unchanged,
                worker_init_fn=_end_with_the_parent,
                generator=torch.Generator(),  # not the global one, whose state is the caller's
            )
        )
    for result in results:
        if isinstance(result, GeoclipError):
            raise result
        yield result


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unchanged(result: Result) -> Result:
    return result


def _end_with_the_parent(_worker: int) -> None:
    """End this process when its parent is killed, in the middle of whatever it writes."""
    parent = (
        multiprocessing.parent_process()
    )  # its pipe tells, also when it died before this line; a pid would not

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
