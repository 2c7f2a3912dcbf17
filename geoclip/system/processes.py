"""Processes: locks between them, stop signals that child processes do not receive, ending a process tree."""

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

# A scheduler or a terminal sends these to every process of a run; the training process decides how to stop.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Processes started inside never receive STOP_SIGNALS, nor do their children; this process gets them at the end."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def locked(path: Path, awaited: str, timeout_s: float = 3600.0) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for the process on this file system that has it.

    Args:
        path: the lock file.
        awaited: what that process is doing; logged after five seconds of waiting.
        timeout_s: how long to wait.

    Raises:
        GeoclipError: the other process kept it for longer.
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
            f"waited {timeout_s / 60:g} min for {awaited}, and {path} is still locked; end the process that locked it"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_or(refusal: BaseException, path: Path) -> Iterator[None]:
    """Hold the lock file `path`; raise `refusal` if another process on this file system has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(blocking=False)
    except Timeout:
        raise refusal from None
    with lock:
        yield


def kill_with_descendants(pid: int) -> None:
    """Kill a process and every process below it, suspended ones too."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def is_stopped(pid: int) -> bool:
    """Whether a process was suspended by SIGSTOP and not continued."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False
