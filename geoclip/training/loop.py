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
from geoclip.data.color import jitter_colors
from geoclip.distributed import World, gather_objects, gather_rows, mean_over_ranks
from geoclip.errors import DataError
from geoclip.geo.geodesy import jitter
from geoclip.model.contrastive import image_to_gps_loss, same_place
from geoclip.training.state import TrainState

log = logging.getLogger("geoclip")

FEW = 10  # broken pictures that no share of is too large


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
    max_bad_fraction: float = 1.0  # of the pictures read so far: more broken ones end the run


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

    sums_3: Tensor  # loss, in-batch recall, broken pictures
    started_s: float = field(default_factory=time.perf_counter)
    steps: int = 0
    samples: int = 0


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> Tensor:
    """One optimizer step; mutates `state` alone.

    Returns:
        (3,) this rank's loss in nats, in-batch recall and broken pictures, detached, on the device.
    """
    present_B = (
        torch.ones_like(batch.gps_deg_B2[:, 0]) if batch.present_B is None else batch.present_B.float()
    )
    rows_M3, first = gather_rows(
        torch.cat((batch.gps_deg_B2, present_B[:, None]), dim=1)
    )  # mine start at `first`
    places_M2, present_M = rows_M3[:, :2], rows_M3[:, 2]
    noisy_M2 = jitter(places_M2, recipe.batch_noise_m, state.noise)
    queue_S2 = state.queue.negatives()
    candidates_M2 = torch.cat((noisy_M2, jitter(queue_S2, recipe.queue_noise_m, state.noise)))
    same_BM = same_place(
        batch.gps_deg_B2, torch.cat((places_M2, queue_S2))
    )  # before the noise made them differ
    images = batch.images if batch.color_BK is None else jitter_colors(batch.images, batch.color_BK)
    with _autocast(images.device, recipe.autocast):
        image_BD, location_MD, scale = state.parallel(images, candidates_M2)
    # DDP takes the mean over ranks: so weighted, it is the mean over all pictures that could be read.
    weight_B = present_B * (len(places_M2) / len(present_B)) / present_M.sum().clamp(min=1)
    loss, recall = image_to_gps_loss(image_BD, location_MD, scale, first, same_BM, weight_B)
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
    return torch.stack((loss.detach(), recall, (1 - present_B).sum()))


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
        What no rank could read on the way.

    Raises:
        DataError: more than `recipe.max_bad_fraction` of the pictures are broken; on every rank at the same step.
    """
    skipped, first_sample = SkipReport(), state.samples_seen
    state.model.train()
    window, broken = _Window(sums_3=torch.zeros(3, device=world.device)), 0
    bar = _progress_bar(state, recipe, world)
    while state.step < recipe.last_step:
        batch = _to_device(next(batches), world.device)
        skipped.add(batch.skipped)
        window.sums_3 += train_step(state, batch, recipe)
        window.steps += 1
        window.samples += len(batch.keys) * world.size
        bar.update()
        ended = state.step == recipe.last_step
        if ended or state.step % hooks.record_every == 0:
            window, newly_broken = _record(state, window, recipe, hooks, bar, world)
            broken += newly_broken
            _refuse_bad_data(broken, state.samples_seen - first_sample, recipe.max_bad_fraction, skipped)
        if ended or state.step % hooks.validate_every == 0:
            paused_s = time.perf_counter()
            hooks.validate(state)
            state.model.train()
            window.started_s += time.perf_counter() - paused_s
        if ended or state.step % hooks.checkpoint_every == 0:
            hooks.checkpoint(state)
    bar.close()
    return _of_all_ranks(skipped)


def _record(
    state: TrainState, window: _Window, recipe: Recipe, hooks: Hooks, bar: tqdm[Never], world: World
) -> tuple[_Window, int]:
    """Bring the sums to the host once, write them down, and open a new window; also the pictures broken in it."""
    loss, recall, broken_per_step = mean_over_ranks(window.sums_3 / window.steps).tolist()
    broken = round(broken_per_step * window.steps * world.size)
    seconds = time.perf_counter() - window.started_s
    values = {
        "samples": state.samples_seen,
        "loss": loss,
        "in_batch_recall": recall,
        "lr": recipe.lr_at(state.step - 1),
        "logit_scale": state.model.logit_scale.exp().item(),
        "samples_per_s": window.samples / seconds,
    }
    hooks.record(state, values | ({"broken": broken} if broken else {}))
    bar.set_postfix_str(
        f"loss {loss:.3f}, in-batch recall {recall:.1%}, {values['samples_per_s']:,.0f} samples/s"
    )
    if not math.isfinite(loss):
        log.warning("step %d: the loss is %s; lower optim.lr, or set optim.grad_clip=1", state.step, loss)
    return _Window(sums_3=torch.zeros_like(window.sums_3)), broken


def _refuse_bad_data(broken: int, read: int, max_fraction: float, skipped: SkipReport) -> None:
    """The same numbers on every rank, so that all stop at the same step. A handful is never too many."""
    if broken >= FEW and broken > max_fraction * read:
        found = _of_all_ranks(skipped)
        raise DataError(
            f"{broken} of {read} pictures are broken, more than data.max_bad_fraction={max_fraction:g}; most in "
            f"{found.worst_shards()}: {'; '.join(found.lines()[:3])}; rebuild these shards or raise the limit"
        )


def _of_all_ranks(skipped: SkipReport) -> SkipReport:
    total = SkipReport()
    for report in gather_objects(skipped):
        total.merge(report)
    return total


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    batch.images = batch.images.to(device, non_blocking=True)
    batch.gps_deg_B2 = batch.gps_deg_B2.to(device, non_blocking=True)
    batch.present_B = None if batch.present_B is None else batch.present_B.to(device, non_blocking=True)
    batch.color_BK = None if batch.color_BK is None else batch.color_BK.to(device, non_blocking=True)
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
