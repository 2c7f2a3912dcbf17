"""Everything that must survive a kill, and how it is written down."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geoclip.errors import CheckpointError
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.gps_queue import GPSQueue

FORMAT = 1


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Everything that must survive a kill. Anything not here is rebuilt from the configuration."""

    model: GeoCLIP
    parallel: GeoCLIP | DistributedDataParallel  # what is called: the model itself, or DDP around it
    queue: GPSQueue
    optimizer: torch.optim.Optimizer
    noise: torch.Generator  # of the coordinates' noise; in the same state on every rank
    step: int = 0  # optimizer steps taken: the learning rate and the position in the data follow from it
    samples_seen: int = 0  # over all ranks
    best_geoscore: float = -1.0  # on the validation split


def save_weights(path: Path, model: GeoCLIP, config: dict[str, Any], **facts: Any) -> None:
    """Weights and configuration, all that evaluation and prediction need."""
    _save(path, {"format": FORMAT, "config": config, "model": trained_weights(model), **facts})


def save_state(path: Path, state: TrainState, config: dict[str, Any]) -> None:
    """A checkpoint that training goes on from."""
    _save(
        path,
        {
            "format": FORMAT,
            "config": config,
            "model": trained_weights(state.model),
            "queue": state.queue.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "noise": state.noise.get_state(),
            "step": state.step,
            "samples_seen": state.samples_seen,
            "best_geoscore": state.best_geoscore,
        },
    )


def load_state(path: Path, state: TrainState) -> None:
    """Take up a checkpoint written by `save_state`.

    Raises:
        CheckpointError: not such a file, or of another architecture; the message names the file.
    """
    saved = read_checkpoint(path)
    load_weights(state.model, saved, path)
    try:
        state.queue.load_state_dict(saved["queue"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.noise.set_state(saved["noise"])
        state.step, state.samples_seen = saved["step"], saved["samples_seen"]
        state.best_geoscore = saved["best_geoscore"]
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds no {error}: it has weights to evaluate, not a state to go on from"
        ) from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: damaged, or not written by this code.
    """
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; train a model first: python -m geoclip.train") from None
    except Exception as error:  # torch raises many kinds on damaged bytes
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete or replace it"
        ) from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of geoclip (format {FORMAT})")
    return saved


def trained_weights(model: GeoCLIP) -> dict[str, Tensor]:
    """All tensors but those of a frozen backbone, which its own source brings back."""
    frozen = model.image_encoder.frozen
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (frozen and name.startswith("image_encoder.backbone."))
    }


def load_weights(model: GeoCLIP, saved: dict[str, Any], path: Path) -> None:
    """Weights of a checkpoint into a model of the same architecture.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        missing, unexpected = model.load_state_dict(saved["model"], strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} is of another architecture: {str(error).splitlines()[-1].strip()}"
        ) from error
    wanted = set(trained_weights(model))
    lost = sorted(wanted.intersection(missing)) + unexpected
    if lost:
        raise CheckpointError(f"{path} is of another architecture: {', '.join(lost[:5])}")


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """The backbone of a run's image encoder, from a checkpoint.

    Raises:
        CheckpointError: it holds none, or one of another architecture.
    """
    prefix = "image_encoder.backbone."
    saved = read_checkpoint(path)["model"]
    weights = {name.removeprefix(prefix): tensor for name, tensor in saved.items() if name.startswith(prefix)}
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip() if weights else "it holds none: its encoder was frozen"
        raise CheckpointError(f"{path} has no backbone that fits this encoder: {why}") from error


def _save(path: Path, contents: dict[str, Any]) -> None:
    """Whole or absent: a temporary name, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
