"""The training loop."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Never

import torch
from torch import Tensor
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport
from geoclip.distributed import World, gather_rows, mean_over_ranks
from geoclip.geo.geodesy import jitter
from geoclip.model.contrastive import image_to_gps_loss, same_place
from geoclip.training.state import TrainState

log = logging.getLogger("geoclip")


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """What a step needs to know, as plain values."""

    last_step: int
    lr_at: Callable[[int], float]
    batch_noise_m: float
    queue_noise_m: float
    grad_clip: float | None
    logit_scale_max: float
    autocast: torch.dtype | None  # None: float32 throughout


@dataclass(kw_only=True, slots=True)
class Hooks:
    """What the loop calls on its way. Every rank calls them; they decide who acts."""

    record: Callable[[TrainState, dict[str, float]], None]
    validate: Callable[[TrainState], None]
    checkpoint: Callable[[TrainState], None]
    record_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 200


@dataclass(kw_only=True, slots=True)
class _Window:
    """Sums since the last record. They stay on the device: a step never waits for a number."""

    sums_2: Tensor
    started_s: float = field(default_factory=time.perf_counter)
    steps: int = 0
    samples: int = 0


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> Tensor:
    """One optimizer step; mutates `state` alone.

    Returns:
        (2,) this rank's loss in nats and in-batch recall, detached, on the device.
    """
    places_M2, first = gather_rows(batch.gps_deg_B2)  # my rows start at `first`
    noisy_M2 = jitter(places_M2, recipe.batch_noise_m, state.noise)
    queue_S2 = state.queue.negatives()
    candidates_M2 = torch.cat((noisy_M2, jitter(queue_S2, recipe.queue_noise_m, state.noise)))
    same_BM = same_place(
        batch.gps_deg_B2, torch.cat((places_M2, queue_S2))
    )  # before the noise made them differ
    with _autocast(batch.pixels_BCHW.device, recipe.autocast):
        image_BD, location_MD, scale = state.parallel(batch.pixels_BCHW, candidates_M2)
    loss, recall = image_to_gps_loss(image_BD, location_MD, scale, first, same_BM)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if recipe.grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.grad_clip)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.lr_at(state.step)
    state.optimizer.step()
    with torch.no_grad():
        state.model.logit_scale.clamp_(max=math.log(recipe.logit_scale_max))
    state.queue.push(places_M2)
    state.step += 1
    state.samples_seen += places_M2.shape[0]
    return torch.stack((loss.detach(), recall))


def train(
    state: TrainState, batches: Iterator[Batch], recipe: Recipe, hooks: Hooks, world: World
) -> SkipReport:
    """Train from `state.step` to `recipe.last_step`.

    Args:
        state: where the run stands; mutated.
        batches: this rank's batches from `state.step` on.
        recipe: the step's numbers.
        hooks: called every so many steps, and all three after the last.
        world: rank, size and device.

    Returns:
        What could not be read on the way.
    """
    skipped = SkipReport()
    state.model.train()
    window = _Window(sums_2=torch.zeros(2, device=world.device))
    bar = _progress_bar(state, recipe, world)
    while state.step < recipe.last_step:
        batch = _to_device(next(batches), world.device)
        skipped.add(batch.skipped)
        window.sums_2 += train_step(state, batch, recipe)
        window.steps += 1
        window.samples += len(batch.keys) * world.size
        bar.update()
        ended = state.step == recipe.last_step
        if ended or state.step % hooks.record_every == 0:
            window = _record(state, window, recipe, hooks, bar)
        if ended or state.step % hooks.validate_every == 0:
            paused_s = time.perf_counter()
            hooks.validate(state)
            state.model.train()
            window.started_s += time.perf_counter() - paused_s
        if ended or state.step % hooks.checkpoint_every == 0:
            hooks.checkpoint(state)
    bar.close()
    return skipped


def _record(state: TrainState, window: _Window, recipe: Recipe, hooks: Hooks, bar: tqdm[Never]) -> _Window:
    """Bring the sums to the host once, write them down, and open a new window."""
    loss, recall = mean_over_ranks(window.sums_2 / window.steps).tolist()
    seconds = time.perf_counter() - window.started_s
    values = {
        "samples": state.samples_seen,
        "loss": loss,
        "in_batch_recall": recall,
        "lr": recipe.lr_at(state.step - 1),
        "logit_scale": state.model.logit_scale.exp().item(),
        "samples_per_s": window.samples / seconds,
    }
    hooks.record(state, values)
    bar.set_postfix_str(
        f"loss {loss:.3f}, in-batch recall {recall:.1%}, {values['samples_per_s']:,.0f} samples/s"
    )
    if not math.isfinite(loss):
        log.warning("step %d: the loss is %s; lower optim.lr, or set optim.grad_clip=1", state.step, loss)
    return _Window(sums_2=torch.zeros_like(window.sums_2))


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    batch.pixels_BCHW = batch.pixels_BCHW.to(device, non_blocking=True)
    batch.gps_deg_B2 = batch.gps_deg_B2.to(device, non_blocking=True)
    return batch


def _autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _progress_bar(state: TrainState, recipe: Recipe, world: World) -> tqdm[Never]:
    return tqdm(
        total=recipe.last_step,
        initial=state.step,
        desc="training",
        unit="step",
        disable=not world.is_main,
        dynamic_ncols=True,
        mininterval=0.5,
    )
