"""Compare the released code with ours on the same work, in one process, in alternating turns.

Both must give the same result, which is checked before anything is timed. Times are medians over the turns, ratios are
taken in each turn, and every row has the least time that the machine needs: operations over its measured matrix rate,
or bytes over its measured bandwidth.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")
MEASURED_TURNS = 5


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Limit:
    """The least time that the machine needs for a row's work."""

    seconds: float
    of: str  # "matrix rate" or "bandwidth", and of what


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Row:
    """One comparison. Times are seconds of the complete work; memory is the growth of the process at its peak."""

    name: str
    ours_s: float
    released_s: float | None = None
    ratio: float | None = None  # median over turns, and its quartiles
    ratio_low: float | None = None
    ratio_high: float | None = None
    target: float | None = None  # of the ratio
    ours_peak_mb: float | None = None
    released_peak_mb: float | None = None
    limit_s: float | None = None
    limit_of: str = ""
    agreement: str = ""  # difference of the results
    note: str = ""

    @property
    def share(self) -> float | None:
        """The limit as a share of our time."""
        return None if self.limit_s is None else self.limit_s / self.ours_s


def compare(
    name: str,
    *,
    ours: Callable[[], Answer],
    released: Callable[[], Answer],
    agree: Callable[[Answer, Answer], str],
    turns: int,
    released_part: float = 1.0,
    ours_part: float = 1.0,
    target: float | None = None,
    limit: Limit | None = None,
    note: str = "",
    memory: bool = True,
) -> Row:
    """Run both sides once for results and memory, then in turns for times.

    Args:
        name: of the row.
        ours: our code, from input to result.
        released: the released code.
        agree: describes the difference of both results, ours first; raises AssertionError if it is too large.
        turns: how often each is timed; at least 2.
        released_part: share of the work that one call of `released` does; its times are divided by it.
        ours_part: likewise.
        target: the ratio that is aimed at.
        limit: of the complete work.
        note: for the table.
        memory: False for work in other processes.
    """
    our_answer, our_peak_mb = with_peak_mb(ours)
    released_answer, released_peak_mb = with_peak_mb(released)
    agreement = agree(our_answer, released_answer)
    del our_answer, released_answer
    our_s, released_s = [], []
    for _ in range(turns):
        released_s.append(seconds_of(released) / released_part)
        our_s.append(seconds_of(ours) / ours_part)
    low, ratio, high = statistics.quantiles(
        [theirs / mine for theirs, mine in zip(released_s, our_s, strict=True)], n=4
    )
    return Row(
        name=name,
        ours_s=statistics.median(our_s),
        released_s=statistics.median(released_s),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        target=target,
        ours_peak_mb=our_peak_mb if memory else None,
        released_peak_mb=released_peak_mb if memory else None,
        limit_s=limit.seconds if limit else None,
        limit_of=limit.of if limit else "",
        agreement=agreement,
        note=note,
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    gc.collect()
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def with_peak_mb(work: Callable[[], Answer]) -> tuple[Answer, float | None]:
    """The result, and the peak growth of the process in MB; None where it is not Linux with glibc."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or memory freed earlier is reused and not counted
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before_mb = _status_mb("VmRSS")
    except (AttributeError, OSError):
        return work(), None
    answer = work()
    return answer, max(0.0, _status_mb("VmHWM") - before_mb)


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


@cache
def matrix_rate() -> float:
    """Float32 operations per second of products of the location encoder's shape, on all threads."""
    wide, narrow = torch.randn(2048, 1024), torch.randn(1024, 1024)
    return 2 * 2048 * 1024 * 1024 / _best_s(lambda: wide @ narrow, calls=20)


@cache
def bandwidth() -> float:
    """Bytes read per second by a sum over far more numbers than fit into the caches, on all threads."""
    numbers = torch.ones(2**27)
    return numbers.nbytes / _best_s(numbers.sum, calls=3)


def _best_s(work: Callable[[], object], calls: int) -> float:
    """The best of several blocks, because a limit is the best that the machine can do."""
    blocks = []
    for _ in range(MEASURED_TURNS):
        start_s = time.perf_counter()
        for _ in range(calls):
            work()
        blocks.append((time.perf_counter() - start_s) / calls)
    return min(blocks)


def products(operations: float) -> Limit:
    """The limit of work that is matrix products. `operations`: multiplications and additions."""
    return Limit(seconds=operations / matrix_rate(), of="matrix rate")


def reading(size_bytes: float) -> Limit:
    """The limit of work that must read these bytes once."""
    return Limit(seconds=size_bytes / bandwidth(), of="bandwidth")


def largest_difference(tolerance: float) -> Callable[[torch.Tensor, torch.Tensor], str]:
    """An `agree` for tensors: the largest difference of any number, relative to the largest number if that is > 1."""

    def agree(ours: torch.Tensor, released: torch.Tensor) -> str:
        difference = float((ours - released).abs().max() / released.abs().max().clamp(min=1))
        assert difference <= tolerance, f"the results differ by {difference:.2g}, allowed is {tolerance:.2g}"
        return f"largest difference {difference:.1g}"

    return agree


def as_json(row: Row) -> dict[str, Any]:
    """A row for the JSON file; `Row(**…)` reads it again."""
    return dataclasses.asdict(row)
