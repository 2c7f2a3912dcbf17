"""Rank, world, one initialisation per process, and the gathering of coordinates."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from geoclip.errors import GeoclipError

T = TypeVar("T")


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """This process among all that train together; one process without `torchrun`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0


def initialise(device: str = "auto", *, size: int = 1) -> World:
    """Join the process group that `torchrun` describes, once per process (a sweep trains many runs in one).

    Args:
        device: `auto` takes this rank's GPU where there is one, else the CPU; or `cpu`, `cuda`, `cuda:1`, `mps`.
        size: how many processes `torchrun` started; 1 without it.

    Raises:
        GeoclipError: the device named is not there.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise GeoclipError(
                f"compute.device={device}, but this machine or this build of torch has no CUDA"
            )
        chosen = torch.device(device if ":" in device else f"cuda:{local_rank}")
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        # At the end of the process, not of a run: a sweep has many.
        atexit.register(dist.destroy_process_group)
    return World(rank=dist.get_rank() if dist.is_initialized() else 0, size=size, device=chosen)


def gather_rows(rows_B2: Tensor) -> tuple[Tensor, int]:
    """Every rank's rows, in the order of ranks, and where this rank's begin. No gradient passes.

    Coordinates are gathered and encoded on every rank, not embeddings: two floats a sample travel, and DDP's
    mean of gradients is the gradient of the global batch. All ranks must bring equally many rows.
    """
    if not dist.is_initialized():
        return rows_B2, 0
    gathered = [torch.empty_like(rows_B2) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows_B2.contiguous())
    return torch.cat(gathered), dist.get_rank() * rows_B2.shape[0]


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a small tensor over all ranks."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def gather_objects(value: T) -> list[T]:
    """Every rank's value, in the order of ranks; for reports, not for the hot path."""
    if not dist.is_initialized():
        return [value]
    gathered: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return cast(list[T], gathered)


def wait_for_all() -> None:
    """Let no rank pass before all have come."""
    if dist.is_initialized():
        dist.barrier()
