"""Rank, world, one initialisation per process, and the gathering of coordinates."""

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
    """This process among all that train together; one process without `torchrun`."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None  # a gloo group for what is not computed; None for one process
    store: Store | None = None
    timeout_s: float = 1800.0

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0


_joined: tuple[dist.ProcessGroup, Store] | None = None  # a sweep trains many runs in one process


def initialise(device: str = "auto", *, size: int = 1, timeout_minutes: float = 30.0) -> World:
    """Join the process group that `torchrun` describes, once per process.

    Args:
        device: `auto` takes this rank's GPU where there is one, else the CPU; or `cpu`, `cuda`, `cuda:1`, `mps`.
        size: how many processes `torchrun` started; 1 without it.
        timeout_minutes: how long a rank waits for another.

    Raises:
        GeoclipError: the device named is not there.
    """
    global _joined
    shared = False
    # Weights of dead units decay to numbers below float32's normal range, the released ones among them, and products
    # of those take a processor seventy times as long. Threads take it over from the one that starts them.
    torch.set_flush_denormal(True)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if problem := device_problem(device):
        raise GeoclipError(problem)
    if device.startswith("cuda"):
        # More ranks than GPUs share them; NCCL refuses two ranks on one, so gloo carries what they exchange.
        shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
        chosen = torch.device(device if ":" in device else f"cuda:{local_rank % torch.cuda.device_count()}")
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device(device)
    if size == 1:
        return World(rank=0, size=1, device=chosen)
    if _joined is None:
        patience = timedelta(minutes=timeout_minutes)
        try:
            store, rank, _ = next(rendezvous("env://", timeout=patience))
        except (RuntimeError, ValueError, OSError) as error:
            raise GeoclipError(
                f"rank {os.environ.get('RANK')} of {size} cannot join the others at MASTER_ADDR="
                f"{os.environ.get('MASTER_ADDR')} MASTER_PORT={os.environ.get('MASTER_PORT')} "
                f"({str(error).splitlines()[0]}); start with torchrun, and see that the port is free and reachable"
            ) from error
        store = PrefixStore(f"geoclip/{_start_number()}", store)
        # What is computed waits longer, so that it is the control group that finds a rank missing, and names it.
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" and not shared else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=1.5 * patience,
        )
        # At the end of the process, not of a run: a sweep has many.
        atexit.register(dist.destroy_process_group)
        control = dist.new_group(backend="gloo", timeout=patience)
        assert control is not None
        _joined = control, store
    control, store = _joined
    return World(
        rank=dist.get_rank(), size=size, device=chosen, control=control, store=store, timeout_s=60 * timeout_minutes
    )


def device_problem(device: str) -> str:
    """Why nothing can be computed on this device here; empty when it can."""
    if device.startswith("cuda"):
        wanted = int(device.partition(":")[2] or 0)  # without a number, ranks share what there is
        if not torch.cuda.is_available():
            return f"compute.device={device}, but this machine or this build of torch has no CUDA"
        if wanted >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            return f"compute.device={device}, but this machine has {count} GPUs: cuda:0 is the first"
    if device == "mps" and not torch.backends.mps.is_available():
        return "compute.device=mps, but this machine or this build of torch has no Metal"
    return ""


def _start_number() -> str:
    """How often torchrun has started these ranks: its store outlives them and still says where the dead ones listened.

    Nodes count for themselves, so that with several of them the number may differ, and the store is shared as it is.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"


SILENT_S = 4.0  # without a word: many times a heartbeat's interval


class Heartbeat:
    """Tells the other ranks which step this one has begun, from a thread: when one hangs, the others can name it."""

    def __init__(self, world: World, every_s: float = 0.5) -> None:
        self._world, self._every_s = world, every_s
        self._step, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True, name="heartbeat")
        if world.store is not None:
            self._thread.start()

    def begun(self, step: int) -> None:
        """This rank has its batch of step `step`."""
        self._step = step

    def end(self) -> None:
        """Fall silent."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * self._every_s)

    def behind(self) -> str:
        """The ranks that have not begun the step that this one has begun, or fell silent; empty when all have."""
        if self._world.store is None:
            return ""
        time.sleep(SILENT_S + self._every_s)  # so that the others' heartbeats arrive, or are missed
        now_s, behind = time.time(), []
        for rank in range(self._world.size):
            key = f"heartbeat/{rank}"
            if rank == self._world.rank:
                continue
            if not self._world.store.check([key]):
                behind.append(f"rank {rank} (which never began to train)")
                continue
            step, host, sent_s = json.loads(self._world.store.get(key))
            quiet_s = now_s - sent_s
            if step < self._step or quiet_s > SILENT_S:
                silent = f", silent for {quiet_s:.0f} s" if quiet_s > SILENT_S else ""
                behind.append(f"rank {rank} on {host} (at step {step}{silent})")
        return "; ".join(behind)

    def _tell(self) -> None:
        store, host = self._world.store, socket.gethostname()
        assert store is not None
        while True:
            try:
                store.set(f"heartbeat/{self._world.rank}", json.dumps([self._step, host, time.time()]))
            except RuntimeError:  # the store's process is gone: so is the run
                return
            if self._ended.wait(self._every_s):
                return


def world_size() -> int:
    """How many ranks there are; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


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


def gather_with_gradient(rows_BD: Tensor) -> Tensor:
    """Every rank's rows, in the order of ranks; a row's gradient is the sum of what all ranks make of it."""
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
    """Every rank's value, in the order of ranks; for reports, not for the hot path."""
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
    """Every gradient's mean over all ranks, as one message; what DDP does, where its hooks could not."""
    if not dist.is_initialized():
        return
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    torch.nn.utils.vector_to_parameters(flat / dist.get_world_size(), gradients)


def wait_for_all() -> None:
    """Let no rank pass before all have come."""
    if dist.is_initialized():
        dist.barrier()
