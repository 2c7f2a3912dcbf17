"""Errors that the user can fix: printed as one sentence, without a traceback; the process ends with status 1."""

from __future__ import annotations


class GeoclipError(RuntimeError):
    """The problem is outside the code; the message names the file, row or key, and the fix."""


class DataError(GeoclipError):
    """Shards, photographs or coordinates that cannot be used."""


class AssetError(GeoclipError):
    """A released file that is neither cached nor reachable, or is corrupt."""


class CheckpointError(GeoclipError):
    """A checkpoint that is corrupt, missing or of another architecture."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def memory_problem(error: BaseException) -> str:
    """What to do if the error means too little memory on CPU or GPU; empty for other errors."""
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not (memory or (isinstance(error, RuntimeError) and "allocate memory" in first_line(error))):
        return ""
    return (
        f"not enough memory ({first_line(error)}): lower the batch size, queue.size or the widths of the "
        "model, set compute.accumulation, or take a machine with more"
    )


class Preempted(SystemExit):
    """The run was stopped, its checkpoint is written, and the same command resumes it.

    Its status is 75 (`EX_TEMPFAIL` of sysexits.h), which tells a scheduler's script to queue the job again; 130 after
    Ctrl-C, as in shells.
    """

    def __init__(self, reason: str, step: int) -> None:
        self.reason, self.step = reason, step
        super().__init__(130 if reason == "SIGINT" else 75)
