"""Other processes: waited for with a bound, started deaf to what asks a run to stop, ended with all they started."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from geoclip.errors import GeoclipError

log = logging.getLogger("geoclip")

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


@contextlib.contextmanager
def locked(path: Path, awaited: str, timeout_s: float = 3600.0) -> Iterator[None]:
    """While inside, no other process on this file system holds this lock.

    Args:
        path: the lock's file.
        awaited: what the process that holds it is waited for; logged where that takes seconds.
        timeout_s: how long to wait.

    Raises:
        GeoclipError: it was held for longer.
    """
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=5)
        except Timeout:
            log.warning("waiting for %s (%s)", awaited, path)
            lock.acquire(timeout=timeout_s)
    except Timeout:
        raise GeoclipError(
            f"waited {timeout_s / 60:g} min for {awaited}, and {path} is still locked; end the process that holds it"
        ) from None
    try:
        yield
    finally:
        lock.release()


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
