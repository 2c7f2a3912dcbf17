"""Checkpoints: one safetensors file each, complete or absent, with a digest; reading one executes no code.

A tensor's name is its path in the saved tree, such as `optimizer/state/3/exp_avg`. Everything else is JSON in the
header. A thread writes a run's checkpoints during training and keeps the newest few.
"""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geoclip.errors import CheckpointError
from geoclip.system.files import atomic_path

log = logging.getLogger("geoclip")

FORMAT = 2
TENSOR = "__tensor__"  # replaces a tensor in the JSON

Tree = dict[str, Any]  # of dicts with str keys, lists, numbers, strings, None and tensors


@dataclass(kw_only=True, slots=True, frozen=True)
class Packed:
    """A tree as tensors, copied to the CPU, and JSON: training continues while it is written."""

    tensors: dict[str, Tensor]
    text: str  # JSON


def pack(tree: Tree) -> Packed:
    """Copy a tree; training may change its tensors as soon as this returns.

    Raises:
        TypeError: a leaf is neither a tensor nor a JSON value.
    """
    tensors: dict[str, Tensor] = {}
    leaves = _flatten(tree, "", tensors)
    copies = {name: tensor.to("cpu", non_blocking=True, copy=True) for name, tensor in tensors.items()}
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.synchronize()  # once, not per tensor
    contiguous = {name: tensor.contiguous() for name, tensor in copies.items()}
    return Packed(tensors=contiguous, text=json.dumps(leaves))


def write_checkpoint(path: Path, packed: Packed) -> None:
    """Write a complete checkpoint or none.

    Raises:
        CheckpointError: it cannot be written, for example to a full disk; a file that exists at `path` is untouched.
    """
    header = {"geoclip": packed.text, "sha256": _digest(packed)}
    try:
        with atomic_path(path) as partial:
            safetensors.torch.save_file(packed.tensors, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in packed.tensors.values()) / 1e6
        raise CheckpointError(
            f"{path} cannot be written ({error}); it needs {size:,.1f} MB. Earlier checkpoints are untouched: free "
            "disk space and rerun the same command"
        ) from error


def read_checkpoint(path: Path) -> Tree:
    """The tree of a checkpoint, its tensors on the CPU.

    Raises:
        CheckpointError: it is missing, corrupt, or not written by this code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; train a model first: python -m geoclip.train")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            packed = Packed(
                tensors={name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118 (no mapping)
                text=header.get("geoclip", ""),
            )
        intact = _digest(packed) == header.get("sha256")
        tree = _unflatten(json.loads(packed.text), packed.tensors) if intact else None
    except Exception as error:  # corrupt bytes can make the reader raise anything
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: it is corrupt, or not a checkpoint); "
            "delete or replace it"
        ) from error
    if tree is None:
        raise CheckpointError(f"{path} is corrupt: its digest does not match its contents; delete or replace it")
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of geoclip (format {FORMAT})")
    return tree


def _digest(packed: Packed) -> str:
    digest = hashlib.sha256(packed.text.encode())
    for name, tensor in sorted(packed.tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flatten(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The node with each tensor moved to `tensors` and replaced by its name."""
    match node:
        case Tensor():
            tensors[path] = node.detach()
            return {TENSOR: path}
        case dict():
            return {key: _flatten(value, f"{path}/{key}" if path else key, tensors) for key, value in node.items()}
        case list() | tuple():
            return [_flatten(value, f"{path}/{number}", tensors) for number, value in enumerate(node)]
        case None | bool() | int() | float() | str():
            return node
        case _:
            raise TypeError(f"{path} is a {type(node).__name__}, which a checkpoint cannot contain")


def _unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_flatten`."""
    match node:
        case {"__tensor__": str(name)}:
            return tensors[name]
        case dict():
            return {key: _unflatten(value, tensors) for key, value in node.items()}
        case list():
            return [_unflatten(value, tensors) for value in node]
        case _:
            return node


def step_file(folder: Path, step: int) -> Path:
    """The path of a step's checkpoint."""
    return folder / f"step-{step:08d}.safetensors"


def step_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first, corrupt ones included."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def newest_good(folder: Path) -> tuple[Path, Tree] | None:
    """The newest checkpoint that can be read; a corrupt one is renamed to *.damaged, with a warning."""
    for path in step_files(folder):
        try:
            return path, read_checkpoint(path)
        except CheckpointError as error:
            log.warning("%s; the one before it is used", error)
            path.replace(path.with_name(f"{path.name}.damaged"))
    return None


class CheckpointWriter:
    """Writes checkpoints in a thread, one after the other; keeps the newest `keep` and `best.safetensors`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        for partial in folder.glob(".*.partial"):  # from a process that was killed
            partial.unlink(missing_ok=True)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def save(self, step: int, tree: Tree) -> None:
        """Start writing a step's checkpoint. Raises as `wait`, for the one before."""
        self._submit(step_file(self.folder, step), tree)

    def save_best(self, tree: Tree) -> None:
        """Start writing the best weights so far. Raises as `wait`, for the one before."""
        self._submit(self.folder / "best.safetensors", tree)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _submit(self, path: Path, tree: Tree) -> None:
        self.wait()  # at most one copy of the state is in memory
        packed = pack(tree)

        def write() -> None:
            write_checkpoint(path, packed)
            for old in step_files(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)

        self._pending = self._thread.submit(write)
