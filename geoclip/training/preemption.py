"""Stopping a run before its end: on a signal or the walltime of any rank, on all ranks at the same step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from geoclip.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Records SIGTERM, SIGUSR1 and Ctrl-C, and the end of the walltime. A second Ctrl-C stops at once.

    SIGUSR2 is recorded if it has a handler already: submitit's, which `pass_on` calls once the checkpoint is written,
    so that the job is queued again.

    Args:
        max_minutes: of walltime from now on; None: no limit.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self._deadline_s = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._before: dict[int, Any] = {}
        self._signal = 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handler
            recorded = [*SIGNALS, *([signal.SIGUSR2] if callable(signal.getsignal(signal.SIGUSR2)) else [])]
            self._before = {number: signal.signal(number, self._on_signal) for number in recorded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def reason(self) -> str:
        """The signal's name or `compute.max_minutes`; empty: do not stop."""
        if self._signal:
            return signal.Signals(self._signal).name
        is_over = self._deadline_s is not None and time.monotonic() > self._deadline_s
        return "compute.max_minutes" if is_over else ""

    def pass_on(self) -> None:
        """Call the handler that was installed before, unless it was one of Python's."""
        before: Callable[..., object] | int | None = self._before.get(self._signal)
        if callable(before) and before is not signal.default_int_handler:
            before(self._signal, None)


class Agreement:
    """Whether any rank has a reason to stop, known to all ranks at the same step.

    The reasons travel over gloo while a step is computed and are read after the next: no step waits for them.
    """

    def __init__(self, stop: StopRequest, world: World) -> None:
        self._stop, self._world = stop, world
        self._any_reason = torch.zeros(1, dtype=torch.uint8)
        self._work: dist.Work | None = None

    def stop(self) -> bool:
        """Whether to stop after this step."""
        if self._world.control is None:
            return bool(self._stop.reason())
        agreed = self.wait()
        self._any_reason = torch.tensor([bool(self._stop.reason())], dtype=torch.uint8)
        self._work = dist.all_reduce(self._any_reason, dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        return agreed

    def wait(self) -> bool:
        """Wait for the current exchange; its result. Call it after the last step too: other ranks wait for this one."""
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._any_reason.item())
