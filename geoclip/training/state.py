"""The state of a training run (model, queue, optimizer, averaged weights, counters), and its form in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from geoclip.data.batch import SkipReport
from geoclip.errors import CheckpointError
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import tuned_tensors
from geoclip.model.queue import GPSQueue
from geoclip.training.checkpoint import FORMAT, Tree, read_checkpoint

BACKBONE = "image_encoder.backbone."
SUMS = 4  # loss, in-batch recall, broken pictures, steps with a finite gradient


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Everything that a run needs to resume; the rest is rebuilt from the configuration."""

    model: GeoCLIP
    parallel: GeoCLIP | DistributedDataParallel  # called in a step: the model itself, or DDP around it
    queue: GPSQueue
    optimizer: torch.optim.Optimizer  # fused, so that the device decides whether a step is taken
    noise: torch.Generator  # draws the coordinates' noise; in the same state on every rank
    average: WeightAverage | None = None
    step: int = 0  # optimizer steps taken; learning rate and position in the data follow from it
    samples_seen: int = 0  # over all ranks
    best_geoscore: float = -1.0  # on the validation split
    validated_step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(SUMS))  # since the last record, on the device
    summed_steps: int = 0
    broken: int = 0  # pictures, over all ranks
    bad_steps: int = 0  # steps whose gradient was not finite
    bad_in_a_row: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)  # by this rank

    def weights(self) -> AbstractContextManager[None]:
        """Context for validation: inside, the model has the averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.swapped_in()


COUNTERS = (
    *("step", "samples_seen", "best_geoscore", "validated_step"),
    *("summed_steps", "broken", "bad_steps", "bad_in_a_row"),
)


def rank_tree(state: TrainState) -> Tree:
    """What differs between ranks."""
    return {"generators": generator_states(), "sums": state.sums.cpu()}


def state_tree(state: TrainState, ranks: list[Tree], skipped: SkipReport, **facts: Any) -> Tree:
    """What training resumes from: every rank's `rank_tree`, what all ranks skipped, and facts at the top level."""
    optimizer = state.optimizer.state_dict()
    return {
        "format": FORMAT,
        "model": trained_weights(state.model),
        "average": None if state.average is None else state.average.state_dict(),
        "queue": state.queue.state_dict(),
        "optimizer": {
            "state": {str(key): value for key, value in optimizer["state"].items()},
            # A recorded step has its learning rate on the device.
            "param_groups": [
                group | {"lr": float(group["lr"]), "capturable": False} for group in optimizer["param_groups"]
            ],
        },
        "noise": state.noise.get_state(),
        "ranks": ranks,
        "skipped": [dict(skipped.counts), skipped.examples, dict(skipped.shards)],
        "counters": {name: getattr(state, name) for name in COUNTERS},
        **facts,
    }


def weights_tree(model: GeoCLIP, step: int, **facts: Any) -> Tree:
    """The model's current weights, which are enough for evaluation and prediction."""
    return {"format": FORMAT, "model": trained_weights(model), "counters": {"step": step}, **facts}


def restore_state(state: TrainState, saved: Tree, path: Path, *, rank: int = 0, world_size: int = 1) -> None:
    """Restore what `state_tree` returned and `path` contains.

    The number of ranks may differ from that of the previous start; an additional rank gets new random generators.

    Raises:
        CheckpointError: it contains only weights, or is of another architecture.
    """
    if "optimizer" not in saved:
        raise CheckpointError(f"{path} has weights to evaluate, not a state to resume from")
    load_weights(state.model, saved["model"], path)
    try:
        state.queue.load_state_dict(saved["queue"])
        _restore_optimizer(state.optimizer, saved["optimizer"])
        state.noise.set_state(saved["noise"])
        if state.average is not None and saved["average"] is not None:
            state.average.load_state_dict(saved["average"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is of another set-up: {str(error).splitlines()[0]}") from error
    sums = [one["sums"] for one in saved["ranks"]]
    if len(sums) == world_size:
        state.sums.copy_(sums[rank])
    else:  # the same means and as many broken pictures
        state.sums.copy_(torch.stack(sums).mean(dim=0))
        state.sums[2] *= len(sums) / world_size
    for name in COUNTERS:
        setattr(state, name, saved["counters"][name])
    counts, examples, shards = saved["skipped"]
    state.skipped = SkipReport()
    if rank == 0:  # the saved report is of all ranks
        state.skipped.counts.update(counts)
        state.skipped.examples.update(examples)
        state.skipped.shards.update(shards)
    if rank < len(saved["ranks"]):
        restore_generators(saved["ranks"][rank]["generators"])
    else:
        seed_generators(state.step * 1_000_003 + rank)


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Tree) -> None:
    """Restore it in the memory layout of the weights, which a fused step requires."""
    numbered = {int(key): value for key, value in saved["state"].items()}
    optimizer.load_state_dict(saved | {"state": numbered})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                values[name] = torch.empty_like(parameter).copy_(value)


def seed_generators(seed: int) -> None:
    """Seed every global generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries draw from the global one)
    torch.manual_seed(seed)


def generator_states() -> Tree:
    """The states of this process's global generators."""
    kind, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [str(kind), [int(word) for word in words], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }


def restore_generators(saved: Tree) -> None:
    """Restore the states of this process's global generators."""
    kind, words, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(words, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss_next = saved["python"]
    random.setstate((version, tuple(internal), gauss_next))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"])


def trained_weights(model: GeoCLIP) -> dict[str, Tensor]:
    """All tensors except the backbone's untrained ones, which come from its pretrained weights."""
    backbone = model.image_encoder.backbone
    tuned = set() if backbone is None else {f"{BACKBONE}{name}" for name in tuned_tensors(backbone)}
    return {
        name: tensor for name, tensor in model.state_dict().items() if name in tuned or not name.startswith(BACKBONE)
    }


def load_weights(model: GeoCLIP, weights: dict[str, Tensor], path: Path) -> None:
    """Weights of a checkpoint into a model of the same architecture.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another architecture: {str(error).splitlines()[-1].strip()}") from error
    wanted = set(trained_weights(model))
    lost = sorted(wanted.intersection(missing)) + unexpected
    if lost:
        raise CheckpointError(f"{path} is of another architecture: {', '.join(lost[:5])}")


def load_location_encoder(encoder: nn.Module, saved: Tree, path: Path) -> None:
    """Load the location encoder of a run's checkpoint.

    Raises:
        CheckpointError: it is of another architecture.
    """
    _load_part(encoder, "location_encoder.", saved, f"{path} has another location encoder")


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load the image encoder's backbone of a run's checkpoint.

    Raises:
        CheckpointError: there is none, or it is of another architecture.
    """
    _load_part(backbone, BACKBONE, read_checkpoint(path), f"{path} has no backbone that fits this encoder")


def _load_part(module: nn.Module, prefix: str, saved: Tree, problem: str) -> None:
    weights = {name.removeprefix(prefix): one for name, one in saved["model"].items() if name.startswith(prefix)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip() if weights else "it has no such weights (a frozen backbone has none)"
        raise CheckpointError(f"{problem}: {why}") from error


@dataclass(kw_only=True, slots=True)
class WeightAverage:
    """The average of a model's trained parameters over steps.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; the
    exponential form: Polyak, Juditsky, 1992.
    """

    parameters: list[Tensor]  # of the model
    average: list[Tensor]  # meaningless while `count` is 0
    decay: float | None  # of the exponential average; None: the plain mean (SWA)
    first_step: int = 0  # the first step whose weights count
    every_steps: int = 1  # interval between steps whose weights count
    count: int = 0  # steps averaged so far

    @classmethod
    def of(cls, model: nn.Module, **how: Any) -> WeightAverage:
        """Of all trained parameters of `model`; `how`: decay, first_step, every_steps."""
        parameters: list[Tensor] = [one for one in model.parameters() if one.requires_grad]
        return cls(parameters=parameters, average=[one.detach().clone() for one in parameters], **how)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step `step` to the average, if this step is averaged. Does not wait for the device."""
        if step < self.first_step or (step - self.first_step) % self.every_steps:
            return
        if self.count == 0:
            torch._foreach_copy_(self.average, self.parameters)
        else:
            merge = get_swa_multi_avg_fn() if self.decay is None else get_ema_multi_avg_fn(self.decay)
            merge(self.average, self.parameters, self.count)
        self.count += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Context in which the model has the averaged weights; its own are restored afterwards, bit-identically."""
        if self.count == 0:
            yield
            return
        with torch.no_grad():
            own = [one.detach().clone() for one in self.parameters]
            torch._foreach_copy_(self.parameters, self.average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"average": list(self.average), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved average of the same model."""
        with torch.no_grad():
            for restored, saved in zip(self.average, state["average"], strict=True):
                restored.copy_(saved)
        self.count = state["count"]
