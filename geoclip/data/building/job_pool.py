"""One function over many items in processes: results in order, few ahead, and no process that outlives its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from geoclip.data.workers import TIMEOUT_S, read_in_processes

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
