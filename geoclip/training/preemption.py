"""When to stop before the end: a signal or the walltime on any rank, and all ranks at the same step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from geoclip.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Listens to SIGTERM, SIGUSR1 and Ctrl-C, whose second press stops at once, and watches the walltime.

    SIGUSR2 is listened to where it has a handler already: it is submitit's, and called by `pass_on`, so that submitit
    queues the job again once the checkpoint is written.

    Args:
        max_minutes: of walltime from now on; None for no limit.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self._deadline_s = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._before: dict[int, Any] = {}
        self._signal = 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handler
            listened = [*SIGNALS, *([signal.SIGUSR2] if callable(signal.getsignal(signal.SIGUSR2)) else [])]
            self._before = {number: signal.signal(number, self._on_signal) for number in listened}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def reason(self) -> str:
        """Why to stop; empty while there is no reason."""
        if self._signal:
            return signal.Signals(self._signal).name
        is_over = self._deadline_s is not None and time.monotonic() > self._deadline_s
        return "compute.max_minutes" if is_over else ""

    def pass_on(self) -> None:
        """Hand the signal to the handler that listened before, if it was one of a program's own."""
        before: Callable[..., object] | int | None = self._before.get(self._signal)
        if callable(before) and before is not signal.default_int_handler:
            before(self._signal, None)


class Agreement:
    """Whether any rank has a reason to stop, known to all at the same step.

    The ranks' answers travel over gloo while a step is computed and are read after it: nothing waits for them.
    """

    def __init__(self, stop: StopRequest, world: World) -> None:
        self._stop, self._world = stop, world
        self._answer = torch.zeros(1, dtype=torch.uint8)
        self._work: dist.Work | None = None

    def stop(self) -> bool:
        """Whether to stop after this step."""
        if self._world.control is None:
            return bool(self._stop.reason())
        agreed = self.last_reply()
        self._answer = torch.tensor([bool(self._stop.reason())], dtype=torch.uint8)
        self._work = dist.all_reduce(self._answer, dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        return agreed

    def last_reply(self) -> bool:
        """The answer under way, waited for. To be called at the end, too: no rank may leave while others listen."""
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._answer.item())
