"""The checkpoints of a run: written beside the training, the newest few kept, the newest good one found again."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from geoclip.errors import CheckpointError
from geoclip.training.checkpoint import Tree, pack, read_checkpoint, write_checkpoint

log = logging.getLogger("geoclip")


def step_file(folder: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return folder / f"step-{step:08d}.safetensors"


def step_files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first, damaged ones included."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def newest_good(folder: Path) -> tuple[Path, Tree] | None:
    """The newest checkpoint that is whole; a damaged one is set aside under another name, with a warning."""
    for path in step_files(folder):
        try:
            return path, read_checkpoint(path)
        except CheckpointError as error:
            log.warning("%s; the one before it is used", error)
            path.replace(path.with_name(f"{path.name}.damaged"))
    return None


class CheckpointWriter:
    """Writes a run's checkpoints in a thread of its own, one after the other. Rank 0 alone has one.

    Args:
        folder: the run's checkpoints.
        keep: how many of the newest stay; `best.safetensors` is not counted.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        for partial in folder.glob(".*.partial"):  # of a process that was killed
            partial.unlink(missing_ok=True)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def save(self, step: int, tree: Tree) -> None:
        """Have a checkpoint written, and older ones than the newest few removed once it stands.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self._submit(step_file(self.folder, step), tree)

    def save_best(self, tree: Tree) -> None:
        """Have the best weights so far written. Raises like `save`."""
        self._submit(self.folder / "best.safetensors", tree)

    def wait(self) -> None:
        """Until everything stands on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _submit(self, path: Path, tree: Tree) -> None:
        self.wait()  # so that at most one copy of the state is held
        packed = pack(tree)

        def write() -> None:
            write_checkpoint(path, packed)
            for old in step_files(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)

        self._pending = self._thread.submit(write)
