"""Other processes: started so that they do not hear what asks a run to stop, and ended with all that they started."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil

# A scheduler or a terminal sends these to every process of a run; the one that trains decides what follows.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """What is started inside never receives STOP_SIGNALS, nor does what it starts; here they are only delayed."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def kill_with_descendants(pid: int) -> None:
    """End a process and whatever it has started, stopped ones too."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP) and not continued."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
