"""One optimizer step, with the batch at once or in parts; learning rates by step.

`GraphedStep` records the step as a CUDA graph and replays it: the host is too slow to launch its many small kernels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from geoclip.data.batch import Batch, named_tensors, with_tensors
from geoclip.data.transforms import jitter_colors
from geoclip.distributed import gather_rows, mean_gradients, world_size
from geoclip.model.geoclip import Embedded, GeoCLIP
from geoclip.training.losses import Draws, Objective, Pairs
from geoclip.training.state import TrainState


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """The settings of a step, and when a run ends."""

    last_step: int
    lr_at: Callable[[int], float]  # learning rate at a step
    objective: Objective
    grad_clip: float | None  # largest norm
    logit_scale_max: float | None
    autocast: torch.dtype | None  # of matrix products; None: float32
    tf32: bool = False  # without autocast, on a GPU: float32 matrix products with TF32's 10 bits
    max_bad_fraction: float = 1.0  # of the pictures read so far; more broken ones end the run
    max_bad_steps: int = 10  # in a row; more without a finite gradient end the run
    parts: int = 1  # number of parts in which the backbone processes this rank's pictures
    queue_embeddings: Literal["encoded", "detached", "stale"] = "encoded"

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """The context that the networks run in."""
        return matrix_products(device, self.autocast, self.tf32)


@dataclass(kw_only=True, slots=True, frozen=True)
class Outcome:
    """What a step reports. It stays on the device, so that the host need not wait."""

    sums: Tensor  # (4,) as TrainState.sums: loss, in-batch recall, broken pictures, 1 if the weights changed
    bad_rows_B: Tensor  # True where the embedding is not finite


class Backward(NamedTuple):
    """Results of a forward and a backward pass, detached."""

    loss: Tensor
    recall: Tensor
    image_ND: Tensor
    location_MD: Tensor


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> Outcome:
    """One optimizer step; mutates `state` alone, and never makes the host wait for the device.

    If the gradient is not finite on any rank, weights, moments and their step count stay as they are on all ranks: the
    fused optimizer reads from the device whether to act, as it does for `torch.amp.GradScaler`.
    """
    draws = prepare_step(state, batch, recipe)
    outcome = device_step(state, batch, draws, recipe)
    end_step(state, batch)
    return outcome


def prepare_step(state: TrainState, batch: Batch, recipe: Recipe) -> Draws:
    """The host's part before a step: set the learning rate, draw the random numbers."""
    for group in state.optimizer.param_groups:
        lr = recipe.lr_at(state.step) * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # a recorded step reads it from the device
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    draws = recipe.objective.draw(world_size() * len(batch.keys), len(state.queue), state.noise)
    return draws.to(batch.gps_deg_B2.device)


def device_step(state: TrainState, batch: Batch, draws: Draws, recipe: Recipe) -> Outcome:
    """The device's part of a step: candidates, loss, gradient, optimizer, queue. It reads no number from the host."""
    objective = recipe.objective
    present_B = torch.ones_like(batch.gps_deg_B2[:, 0]) if batch.present_B is None else batch.present_B.float()
    rows_G3, first = gather_rows(torch.cat((batch.gps_deg_B2, present_B[:, None]), dim=1))
    gps_deg_G2, present_G = rows_G3[:, :2], rows_G3[:, 2]
    noisy_M2, true_M2 = objective.candidates(gps_deg_G2, state.queue.negatives(), draws)
    queue_SD = None
    if recipe.queue_embeddings != "encoded":
        batch_G2, queue_S2, hard_H2 = noisy_M2.tensor_split([len(gps_deg_G2), len(gps_deg_G2) + len(state.queue)])
        queue_SD, noisy_M2 = _queue_embeddings(state, queue_S2, recipe), torch.cat((batch_G2, hard_H2))
    pairs = objective.pairs(batch.gps_deg_B2, true_M2, present_B, present_G, first, queue_SD)
    state.optimizer.zero_grad(set_to_none=True)
    loss, recall, image_ND, location_MD = _backward(state, _images(batch, objective.views), noisy_M2, pairs, recipe)
    finite = _update(state, recipe)
    state.queue.push(gps_deg_G2, location_MD[: len(gps_deg_G2)])
    found = torch.stack((loss, recall, (1 - present_B).sum(), finite))
    bad_N = ~image_ND.isfinite().all(dim=1)
    return Outcome(
        sums=torch.where(found.isfinite(), found, 0),  # a NaN would make the mean over steps NaN
        bad_rows_B=bad_N.view(-1, objective.views).any(dim=1),
    )


def end_step(state: TrainState, batch: Batch) -> None:
    """The host's part after a step: count it, and update the average of the weights."""
    state.step += 1
    state.samples_seen += world_size() * len(batch.keys)
    if state.average is not None:
        state.average.update(state.step)


def _images(batch: Batch, views: int) -> Tensor:
    """(B · views, …) the batch's images or features, with their colour augmentation."""
    images, color = batch.images, batch.color_BK
    if views > 1:
        images, color = images.flatten(0, 1), None if color is None else color.flatten(0, 1)
    return images if color is None else jitter_colors(images, color)


def _backward(state: TrainState, images: Tensor, noisy_M2: Tensor, pairs: Pairs, recipe: Recipe) -> Backward:
    """Add the gradient of the loss over all ranks to the parameters."""
    if recipe.parts > 1 and images.ndim > 2:
        if not state.model.image_encoder.frozen:
            results = backward_in_parts(state.model, images, noisy_M2, pairs, recipe)
            mean_gradients(list(state.model.parameters()))
            return results
        with torch.no_grad(), recipe.precision(images.device):
            features = state.model.image_encoder.features
            images = torch.cat([features(part).float() for part in images.chunk(recipe.parts)])
    with recipe.precision(images.device):
        embedded: Embedded = state.parallel(images, noisy_M2)
    # Logits are always float32. TF32's products add no visible error to embeddings of bfloat16 or TF32 precision.
    with matrix_products(images.device, None, tf32=recipe.tf32 or recipe.autocast is not None):
        loss, recall = pairs(embedded)
        loss.backward()
    return Backward(loss.detach(), recall, embedded.image_BD.detach(), embedded.location_MD.detach())


@torch.no_grad()
def _queue_embeddings(state: TrainState, queue_S2: Tensor, recipe: Recipe) -> Tensor:
    """(S, D) the queue's embeddings without gradient: by the present weights, or (stale) by those at the push."""
    if recipe.queue_embeddings == "stale" and state.queue.embedding_SD is not None:
        return state.queue.embedding_SD
    with recipe.precision(queue_S2.device):
        queue_SD = state.model.encode_location(queue_S2)
    if recipe.queue_embeddings == "stale":
        state.queue.embedding_SD = queue_SD  # at the first step
    return queue_SD


def _update(state: TrainState, recipe: Recipe) -> Tensor:
    """Update the weights if the gradient is finite. Returns 1 if they were updated, else 0."""
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
    """Set the precision of matrix products: autocast's type, TF32 on a GPU, or float32."""
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
    recipe: Recipe,
) -> Backward:
    """Add the gradient of the full batch's loss to the parameters, with the activations of one part at a time.

    A contrastive loss compares all pictures, so it is not the mean of the parts' losses. Three passes: embed all parts
    without a graph; compute the gradient of the loss with respect to each embedding; embed each part again, with a
    graph, and backpropagate the embeddings' gradient.

    The model is not wrapped in DDP: the caller averages gradients over ranks. `loss_of` returns loss and recall.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.
    """
    device = images.device
    chunks, generators, embedded = images.chunk(recipe.parts), [], []
    with torch.no_grad(), recipe.precision(device):
        for chunk in chunks:
            cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
            generators.append((torch.get_rng_state(), cuda))
            embedded.append(model.encode_image(chunk))
    image_BD = torch.cat(embedded).requires_grad_()
    with recipe.precision(device):
        location_MD, terms = model.encode_location(candidates_M2), model.logit_terms()
    loss, recall = loss_of(Embedded(image_BD, location_MD, *terms))
    loss.backward()
    assert image_BD.grad is not None
    for chunk, states, gradient in zip(chunks, generators, image_BD.grad.chunk(recipe.parts), strict=True):
        with _random_state(device, *states), recipe.precision(device):
            part = model.encode_image(chunk)
        part.backward(gradient)
    return Backward(loss.detach(), recall, image_BD.detach(), location_MD.detach())


@contextlib.contextmanager
def _random_state(device: torch.device, cpu: Tensor, cuda: Tensor | None) -> Iterator[None]:
    """Use these random states, so that dropout drops the same units in both passes."""
    with torch.random.fork_rng(devices=[] if cuda is None else [device]):
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        yield


def step_lr(base: float, step: int, *, batch_size: int, samples_per_epoch: int, gamma: float) -> float:
    """`base * gamma ** epoch`: one decay per epoch; a batch may be part of two epochs."""
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
    """`lr_at` up to step `start`, then the constant `value`: the learning rate of stochastic weight averaging."""
    return value if step >= start else lr_at(step)


EAGER_STEPS = 3  # before recording: libraries choose their algorithms, the optimizer makes its moments


@dataclass(slots=True)
class GraphedStep:
    """`train_step` for one GPU, with its device part recorded. Same arguments, same results.

    A graph reads and writes fixed addresses: each batch is copied into the tensors of the recording, and the queue is
    written back to where the graph reads it. All batches must have the same shape.

    Source: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, whole-network capture.
    """

    _steps: int = 0
    _graph: torch.cuda.CUDAGraph | None = None
    _batch: Batch | None = None
    _draws: Draws = field(default_factory=Draws)
    _outcome: Outcome | None = None

    def __call__(self, state: TrainState, batch: Batch, recipe: Recipe) -> Outcome:
        """One optimizer step; see `train_step`."""
        draws = prepare_step(state, batch, recipe)
        if self._batch is None:
            self._batch, self._draws = with_tensors(batch, Tensor.clone), draws
            _learning_rates_on_device(state)
        else:
            _overwrite(self._batch, batch)
            _overwrite(self._draws, draws)
        if self._steps < EAGER_STEPS:
            stream = torch.cuda.Stream()  # recording needs the steps before it on a side stream
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                outcome = device_step(state, self._batch, self._draws, recipe)
            torch.cuda.current_stream().wait_stream(stream)
        else:
            if self._graph is None:
                self._graph = self._record(state, self._batch, recipe)
            self._graph.replay()
            assert self._outcome is not None
            outcome = with_tensors(self._outcome, Tensor.clone)  # the next replay overwrites the graph's own
        self._steps += 1
        end_step(state, batch)
        return outcome

    def _record(self, state: TrainState, batch: Batch, recipe: Recipe) -> torch.cuda.CUDAGraph:
        """Record a step without computing it."""
        queue, graph = state.queue, torch.cuda.CUDAGraph()
        addresses = (queue.gps_deg_S2, queue.position, queue.embedding_SD)
        with torch.cuda.graph(graph):
            self._outcome = device_step(state, batch, self._draws, recipe)
            for fixed, pushed in zip(addresses, (queue.gps_deg_S2, queue.position, queue.embedding_SD), strict=True):
                if fixed is not None and pushed is not None:
                    fixed.copy_(pushed)
        queue.gps_deg_S2, queue.position, queue.embedding_SD = addresses
        return graph


def _overwrite(fixed: Batch | Draws, values: Batch | Draws) -> None:
    """Copy every tensor to the address that the graph reads."""
    for into, value in zip(named_tensors(fixed).values(), named_tensors(values).values(), strict=True):
        into.copy_(value)


def _learning_rates_on_device(state: TrainState) -> None:
    """Make every learning rate a tensor, because a graph replays Python numbers with their recorded values."""
    for group in state.optimizer.param_groups:
        group["lr"] = torch.full((), group["lr"], device=group["params"][0].device)
        group["capturable"] = True
