"""Ranks: joining the process group, gathering over ranks, naming ranks that are missing."""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from geoclip.errors import GeoclipError

T = TypeVar("T")


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """This process among all ranks; without `torchrun` the only one."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None  # gloo, for everything but tensors of the model; None for one process
    store: Store | None = None
    timeout_s: float = 1800.0

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0


_joined: tuple[dist.ProcessGroup, Store] | None = None  # once per process, although a sweep trains many runs in one


def initialise(device: str = "auto", *, size: int = 1, timeout_minutes: float = 30.0) -> World:
    """Choose this rank's device and join the process group that `torchrun` describes.

    `device`: `auto` (this rank's GPU, or the CPU if there is none), `cpu`, `cuda`, `cuda:1` or `mps`. `size` is the
    number of processes that `torchrun` started, and `timeout_minutes` is how long a rank waits for another.

    Raises:
        GeoclipError: there is no such device, or the other ranks cannot be reached.
    """
    global _joined
    # Weights of dead units decay to subnormal numbers, also in the released weights, and products of these take a CPU
    # seventy times as long. Threads inherit the setting from the thread that starts them.
    torch.set_flush_denormal(True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if problem := device_problem(device):
        raise GeoclipError(problem)
    shared_gpus = False
    if device.startswith("cuda"):
        gpus = torch.cuda.device_count()
        shared_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > gpus
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = torch.device(device if ":" in device else f"cuda:{local_rank % gpus}")
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device(device)
    if size == 1:
        return World(rank=0, size=1, device=chosen)
    if _joined is None:
        # NCCL refuses two ranks on one GPU.
        backend = "nccl" if chosen.type == "cuda" and not shared_gpus else "gloo"
        _joined = _join(backend, size, timedelta(minutes=timeout_minutes))
    control, store = _joined
    return World(
        rank=dist.get_rank(), size=size, device=chosen, control=control, store=store, timeout_s=60 * timeout_minutes
    )


def _join(backend: str, size: int, timeout: timedelta) -> tuple[dist.ProcessGroup, Store]:
    """Start the process group and the control group, until this process ends."""
    try:
        store, rank, _ = next(rendezvous("env://", timeout=timeout))
    except (RuntimeError, ValueError, OSError) as error:
        raise GeoclipError(
            f"rank {os.environ.get('RANK')} of {size} cannot join the others at MASTER_ADDR="
            f"{os.environ.get('MASTER_ADDR')} MASTER_PORT={os.environ.get('MASTER_PORT')} "
            f"({str(error).splitlines()[0]}); start with torchrun, and check that the port is free and reachable"
        ) from error
    # After a restart the store still has the addresses of the dead ranks, so each start has its own prefix. With
    # several nodes the count may differ between them, and there is one prefix.
    one_node = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_node else "0"
    store = PrefixStore(f"geoclip/{start}", store)
    # The control group has the shorter timeout, so that it is the one that finds and names a missing rank.
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=1.5 * timeout)
    atexit.register(dist.destroy_process_group)
    control = dist.new_group(backend="gloo", timeout=timeout)
    assert control is not None
    return control, store


def device_problem(device: str) -> str:
    """Why nothing can be computed on this device; empty if it can."""
    if device.startswith("cuda"):
        wanted = int(device.partition(":")[2] or 0)
        if not torch.cuda.is_available():
            return f"compute.device={device}, but this machine or this build of torch has no CUDA"
        if wanted >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            return f"compute.device={device}, but this machine has {count} GPUs: cuda:0 is the first"
    if device == "mps" and not torch.backends.mps.is_available():
        return "compute.device=mps, but this machine or this build of torch has no Metal"
    return ""


SILENT_S = 4.0  # without a heartbeat: many times its interval


class Heartbeat:
    """Publishes this rank's step from a thread, so that other ranks can name this one if it hangs.

    Attributes:
        step: set it when this rank has the batch of that step.
    """

    def __init__(self, world: World, every_s: float = 0.5) -> None:
        self._world, self._every_s = world, every_s
        self.step, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True, name="heartbeat")
        if world.store is not None:
            self._thread.start()

    def end(self) -> None:
        """Stop publishing."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * self._every_s)

    def missing_ranks(self) -> str:
        """The ranks that are behind this one's step, or silent; empty if there are none. Waits a few seconds."""
        if self._world.store is None:
            return ""
        time.sleep(SILENT_S + self._every_s)
        now_s, missing = time.time(), []
        for rank in range(self._world.size):
            key = f"heartbeat/{rank}"
            if rank == self._world.rank:
                continue
            if not self._world.store.check([key]):
                missing.append(f"rank {rank} (which never began to train)")
                continue
            step, host, sent_s = json.loads(self._world.store.get(key))
            quiet_s = now_s - sent_s
            if step < self.step or quiet_s > SILENT_S:
                silent = f", silent for {quiet_s:.0f} s" if quiet_s > SILENT_S else ""
                missing.append(f"rank {rank} on {host} (at step {step}{silent})")
        return "; ".join(missing)

    def _publish(self) -> None:
        store, host = self._world.store, socket.gethostname()
        assert store is not None
        while True:
            try:
                store.set(f"heartbeat/{self._world.rank}", json.dumps([self.step, host, time.time()]))
            except RuntimeError:  # the process with the store has ended, and so has the run
                return
            if self._ended.wait(self._every_s):
                return


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(rows_B2: Tensor) -> tuple[Tensor, int]:
    """Every rank's rows, in order of ranks, without gradient; and the row at which this rank's begin.

    Coordinates are gathered and embedded on every rank, instead of their embeddings: two numbers a sample travel, and
    DDP's mean of gradients is the gradient of the global batch. All ranks need equally many rows.
    """
    if not dist.is_initialized():
        return rows_B2, 0
    gathered = [torch.empty_like(rows_B2) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows_B2.contiguous())
    return torch.cat(gathered), dist.get_rank() * rows_B2.shape[0]


def gather_with_gradient(rows_BD: Tensor) -> Tensor:
    """Every rank's rows, in order of ranks; a row's gradient is the sum over all ranks."""
    if not dist.is_initialized():
        return rows_BD
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows_BD))


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a small tensor over all ranks."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def gather_objects(value: T) -> list[T]:
    """Every rank's value, in order of ranks. Slow: not for every step."""
    if not dist.is_initialized():
        return [value]
    gathered: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return cast("list[T]", gathered)


def broadcast_from_main(value: bool, world: World) -> bool:
    """Rank 0's value, on every rank; the others wait for it."""
    if world.control is None:
        return value
    received = torch.tensor([value], dtype=torch.uint8)
    dist.broadcast(received, 0, group=world.control)
    return bool(received.item())


def mean_gradients(parameters: list[Tensor]) -> None:
    """Replace every gradient by its mean over all ranks, in one message, where DDP's hooks cannot."""
    if not dist.is_initialized():
        return
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.cat([one.reshape(-1) for one in gradients])  # gradients of channels-last weights are not contiguous
    dist.all_reduce(flat)
    means = (flat / dist.get_world_size()).split([one.numel() for one in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))


def wait_for_all() -> None:
    """Wait until every rank has called this."""
    if dist.is_initialized():
        dist.barrier()
