"""Errors that the user can mend: printed as one sentence, without a traceback, and the process ends with status 1."""

from __future__ import annotations


class GeoclipError(RuntimeError):
    """Something outside of the code is wrong; the message names the file, the row or the key, and the mend."""


class DataError(GeoclipError):
    """Shards, photographs or coordinates that cannot be used."""


class AssetError(GeoclipError):
    """A released file that is neither cached nor reachable, or damaged."""


class CheckpointError(GeoclipError):
    """A checkpoint that is damaged, missing or of another architecture."""


def memory_problem(error: BaseException) -> str:
    """What to do where a processor or a GPU has too little memory; empty of another error."""
    said = next(iter(str(error).splitlines()), "")
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not (memory or (isinstance(error, RuntimeError) and "allocate memory" in said)):
        return ""
    return (
        f"not enough memory ({said or 'MemoryError'}): lower the batch size, queue.size or the widths of the model, "
        "set compute.accumulation, or take a machine with more"
    )


class Preempted(SystemExit):
    """The run was asked to stop, has written its checkpoint, and the same command goes on.

    Its status is 75, `EX_TEMPFAIL` of sysexits.h, by which a scheduler's script knows that the job is to be queued
    again; 130 after Ctrl-C, as shells have it.
    """

    def __init__(self, reason: str, step: int) -> None:
        self.reason, self.step = reason, step
        super().__init__(130 if reason == "SIGINT" else 75)
