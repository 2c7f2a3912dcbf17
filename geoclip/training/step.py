"""One optimizer step, the batch at once or in parts, and the learning rate as a function of the step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from geoclip.data.batch import Batch
from geoclip.data.transforms import jitter_colors
from geoclip.distributed import gather_rows, mean_gradients, world_size
from geoclip.model.geoclip import Embedded, GeoCLIP
from geoclip.training.losses import Draws, Objective, Pairs
from geoclip.training.state import TrainState


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """What a step needs to know, as plain values."""

    last_step: int
    lr_at: Callable[[int], float]
    objective: Objective
    grad_clip: float | None
    logit_scale_max: float | None
    autocast: torch.dtype | None  # of matrix products; None: float32
    tf32: bool = False  # without autocast: float32 matrix products with TF32's 10 bits, on a GPU
    max_bad_fraction: float = 1.0  # of the pictures read so far: more broken ones end the run
    max_bad_steps: int = 10  # in a row: more without a finite gradient end the run
    parts: int = 1  # that the backbone sees this rank's pictures in
    queue_embeddings: Literal["encoded", "detached", "stale"] = "encoded"


@dataclass(kw_only=True, slots=True, frozen=True)
class Outcome:
    """What a step reports, on the device: nobody waits for it."""

    sums: Tensor  # (4,) as TrainState.sums: loss, in-batch recall, broken pictures, 1 where the step was taken
    bad_rows_B: Tensor  # whose embedding is not finite


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> Outcome:
    """One optimizer step; mutates `state` alone. The host never waits for the device.

    With a gradient that is not finite on any rank, weights, moments and their step count stay as they are on all: the
    fused optimizer reads from the device whether to act, as it does for `torch.amp.GradScaler`.
    """
    draws = prepare_step(state, batch, recipe)
    return end_step(state, batch, device_step(state, batch, draws, recipe))


def prepare_step(state: TrainState, batch: Batch, recipe: Recipe) -> Draws:
    """What the host does before a step: set the learning rate and draw the step's random numbers."""
    for group in state.optimizer.param_groups:
        lr = recipe.lr_at(state.step) * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # a recorded step reads it from the device
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    draws = recipe.objective.draw(world_size() * len(batch.keys), len(state.queue), state.noise)
    return draws.to(batch.gps_deg_B2.device)


def device_step(state: TrainState, batch: Batch, draws: Draws, recipe: Recipe) -> Outcome:
    """What the device does in a step: candidates, loss, gradient, optimizer, queue. It depends on no host value."""
    present_B = torch.ones_like(batch.gps_deg_B2[:, 0]) if batch.present_B is None else batch.present_B.float()
    # This rank's rows begin at `first`.
    rows_G3, first = gather_rows(torch.cat((batch.gps_deg_B2, present_B[:, None]), dim=1))
    gps_deg_G2, present_G = rows_G3[:, :2], rows_G3[:, 2]
    objective = recipe.objective
    noisy_M2, true_M2 = objective.candidates(gps_deg_G2, state.queue.negatives(), draws)
    queue_SD = None
    if recipe.queue_embeddings != "encoded":
        batch_G2, queue_S2, hard_H2 = noisy_M2.tensor_split([len(gps_deg_G2), len(gps_deg_G2) + len(state.queue)])
        queue_SD, noisy_M2 = _queue_embeddings(state, queue_S2, recipe), torch.cat((batch_G2, hard_H2))
    pairs = objective.pairs(batch.gps_deg_B2, true_M2, present_B, present_G, first, queue_SD)
    images, color = batch.images, batch.color_BK
    if objective.views > 1:
        images, color = images.flatten(0, 1), None if color is None else color.flatten(0, 1)
    if color is not None:
        images = jitter_colors(images, color)
    state.optimizer.zero_grad(set_to_none=True)
    loss, recall, image_ND, location_MD = _backward(state, images, noisy_M2, pairs, recipe)
    finite = _update(state, recipe)
    state.queue.push(gps_deg_G2, location_MD[: len(gps_deg_G2)])
    found = torch.stack((loss, recall, (1 - present_B).sum(), finite))
    # A loss that is not finite would spoil the mean of the others.
    bad_N = ~image_ND.detach().isfinite().all(dim=1)
    return Outcome(sums=torch.where(found.isfinite(), found, 0), bad_rows_B=bad_N.view(-1, objective.views).any(dim=1))


def end_step(state: TrainState, batch: Batch, outcome: Outcome) -> Outcome:
    """What the host does after a step: count it and average the weights."""
    state.step += 1
    state.samples_seen += world_size() * len(batch.keys)
    if state.average is not None:
        state.average.update(state.step)
    return outcome


def _backward(
    state: TrainState, images: Tensor, noisy_M2: Tensor, pairs: Pairs, recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the loss over all ranks; this rank's loss and recall, detached, and what was embedded."""
    precision = partial(matrix_products, images.device, recipe.autocast, recipe.tf32)
    if recipe.parts > 1 and images.ndim > 2:
        if not state.model.image_encoder.frozen:
            results = backward_in_parts(state.model, images, noisy_M2, pairs, recipe.parts, precision)
            mean_gradients(list(state.model.parameters()))
            return results
        with torch.no_grad(), precision():  # a frozen backbone sees a part at a time, once
            features = state.model.image_encoder.features
            images = torch.cat([features(part).float() for part in images.chunk(recipe.parts)])
    with precision():
        embedded: Embedded = state.parallel(images, noisy_M2)
    # Logits are float32 always. With embeddings from 8 or 10 bits, TF32's products add no error that could be seen.
    with matrix_products(images.device, None, tf32=recipe.tf32 or recipe.autocast is not None):
        loss, recall = pairs(embedded)
        loss.backward()
    return loss.detach(), recall, embedded.image_BD, embedded.location_MD


@torch.no_grad()
def _queue_embeddings(state: TrainState, queue_S2: Tensor, recipe: Recipe) -> Tensor:
    """(S, D) the queue's embeddings without gradient: of now, or of when they were pushed."""
    if recipe.queue_embeddings == "stale" and state.queue.embedding_SD is not None:
        return state.queue.embedding_SD
    with matrix_products(queue_S2.device, recipe.autocast, recipe.tf32):
        queue_SD = state.model.encode_location(queue_S2)
    if recipe.queue_embeddings == "stale":
        state.queue.embedding_SD = queue_SD  # where the queue starts, at the first step
    return queue_SD


def _update(state: TrainState, recipe: Recipe) -> Tensor:
    """Move the weights, unless the gradient is not finite; 1 where it was."""
    trained = [one for one in state.model.parameters() if one.grad is not None]
    norm = torch.nn.utils.get_total_norm([one.grad for one in trained if one.grad is not None])
    if recipe.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, recipe.grad_clip, norm)
    finite = norm.isfinite().float()
    state.optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
    state.optimizer.grad_scale = None  # type: ignore[attr-defined]
    state.optimizer.step()
    if recipe.logit_scale_max is not None:
        with torch.no_grad():
            state.model.logit_scale.clamp_(max=math.log(recipe.logit_scale_max))
    return finite


@contextlib.contextmanager
def matrix_products(device: torch.device, autocast: torch.dtype | None, tf32: bool = False) -> Iterator[None]:
    """The precision of matrix products inside: of autocast's type, or TF32 on a GPU, or plain float32."""
    if autocast is not None:
        with torch.autocast(device.type, dtype=autocast):
            yield
    elif tf32 and device.type == "cuda":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield


def backward_in_parts(
    model: GeoCLIP,
    images: Tensor,
    candidates_M2: Tensor,
    loss_of: Callable[[Embedded], tuple[Tensor, Tensor]],
    parts: int,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss of the whole batch, its gradient added to the model's parameters; no rank's mean is taken.

    A contrastive loss ties pictures to each other: the mean of the parts' losses is another loss. So the embeddings of
    all parts are computed first, without a graph; the loss of the whole gives each of them its gradient; then every
    part is embedded again, with a graph, and that gradient goes through it.

    Args:
        model: not wrapped; the caller averages gradients over ranks.
        images: (B, …) of this rank.
        candidates_M2: coordinates.
        loss_of: the loss and the in-batch recall of the whole batch.
        parts: how many the pictures are taken in.
        autocast: the context that the model runs in.

    Returns:
        The loss and the recall, detached, the (B, D) image embeddings and those of the candidates.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.
    """
    chunks, drawn, embedded = images.chunk(parts), [], []
    with torch.no_grad(), autocast():
        for chunk in chunks:
            drawn.append(_generator_states(images.device))
            embedded.append(model.encode_image(chunk))
    image_BD = torch.cat(embedded).requires_grad_()
    with autocast():
        location_MD, terms = model.encode_location(candidates_M2), model.logit_terms()
    loss, recall = loss_of(Embedded(image_BD, location_MD, *terms))
    loss.backward()
    assert image_BD.grad is not None
    for chunk, states, gradient in zip(chunks, drawn, image_BD.grad.chunk(parts), strict=True):
        with _replayed(images.device, *states), autocast():
            part = model.encode_image(chunk)
        part.backward(gradient)
    return loss.detach(), recall, image_BD.detach(), location_MD.detach()


def _generator_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the CPU and of the GPU in use."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextlib.contextmanager
def _replayed(device: torch.device, cpu: Tensor, cuda: Tensor | None) -> Iterator[None]:
    """Draw again from these states, so that dropout drops the same units in both passes; then as if nothing was."""
    with torch.random.fork_rng(devices=[] if cuda is None else [device]):
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        yield


def step_lr(base: float, step: int, *, batch_size: int, samples_per_epoch: int, gamma: float) -> float:
    """`base * gamma ** epoch`: StepLR, one decay per epoch; batches may straddle epochs."""
    return base * gamma ** (step * batch_size // samples_per_epoch)


def warmup_cosine_lr(base: float, step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `base`, then half a cosine to zero at `total_steps`.

    Source: Loshchilov, Hutter, "SGDR", ICLR 2017, eq. 5, without restarts.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def constant_from(lr_at: Callable[[int], float], start: int, value: float, step: int) -> float:
    """Another schedule up to step `start`, then a constant: what stochastic weight averaging explores with."""
    return value if step >= start else lr_at(step)
