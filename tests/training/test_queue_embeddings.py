"""The queue's embeddings: encoded with gradient, detached, or stale; each against its own brute force."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from geoclip.data.batch import Batch
from geoclip.training.losses import Objective
from geoclip.training.state import TrainState, restore_state
from geoclip.training.step import train_step
from tests.config.test_configs import problems_of
from tests.fixtures.training import Batches, Recipes, States
from tests.training.test_state import PATH, through_a_file


def gradients(state: TrainState, batch: Batch, queue_SD: Tensor) -> list[Tensor]:
    """Of the one-way cross-entropy with these embeddings for the queue's, by autograd alone."""
    model = state.model
    model.zero_grad()
    location_MD = torch.cat((model.encode_location(batch.gps_deg_B2), queue_SD))
    logits_BM = model.logit_scale.exp() * model.encode_image(batch.images) @ location_MD.T
    torch.nn.functional.cross_entropy(logits_BM, torch.arange(len(logits_BM))).backward()
    found = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    model.zero_grad()
    return found


def learnt(state: TrainState) -> list[Tensor]:
    return [one.grad for one in state.model.parameters() if one.grad is not None]


def close(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.allclose(one, other, atol=1e-6) for one, other in zip(some, others, strict=True))


def test_a_detached_queue_is_the_same_loss_and_another_gradient(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    detached, encoded, brute = (new_state(0) for _ in range(3))
    batch = new_batch(0)
    queue_SD = brute.model.encode_location(brute.queue.negatives())
    without, within = gradients(brute, batch, queue_SD.detach()), gradients(brute, batch, queue_SD)
    loss = train_step(detached, batch, recipe(queue_embeddings="detached")).sums[0]
    torch.testing.assert_close(train_step(encoded, batch, recipe()).sums[0], loss)
    assert close(learnt(detached), without) and close(learnt(encoded), within)
    assert not close(without, within)


def test_a_stale_queue_has_the_embeddings_of_the_push(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    state, stale = new_state(0), recipe(queue_embeddings="stale")
    start_SD = state.model.encode_location(state.queue.negatives()).detach()
    pushed_BD = state.model.encode_location(new_batch(0).gps_deg_B2).detach()
    train_step(state, new_batch(0), stale)
    count = min(len(pushed_BD), len(start_SD))
    expected_SD = torch.cat((pushed_BD[-count:], start_SD[count:]))
    assert state.queue.embedding_SD is not None
    torch.testing.assert_close(state.queue.embedding_SD, expected_SD)
    wanted = gradients(state, new_batch(1), expected_SD)
    train_step(state, new_batch(1), stale)
    assert close(learnt(state), wanted)
    now_SD = state.model.encode_location(state.queue.negatives())
    assert not torch.allclose(state.queue.embedding_SD, now_SD, atol=1e-4)


def test_a_stale_queue_is_restored(tmp_path: Path, new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    state, again, stale = new_state(0), new_state(1), recipe(queue_embeddings="stale")
    for number in range(3):
        train_step(state, new_batch(number), stale)
    restore_state(again, through_a_file(state, tmp_path), PATH)
    for one in (state, again):
        train_step(one, new_batch(3), stale)
    for one_tensor, other in zip(state.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one_tensor, other)


@pytest.mark.parametrize("kind", ["one_way", "symmetric", "sigmoid"])
def test_every_loss_keeps_the_order_of_candidates(
    new_state: States, new_batch: Batches, recipe: Recipes, kind: str
) -> None:
    objective = Objective(kind=kind, hard_negatives=2)  # type: ignore[arg-type]
    losses = [
        train_step(new_state(0), new_batch(0), recipe(objective=objective, queue_embeddings=name)).sums[:2]
        for name in ("encoded", "detached", "stale")
    ]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_without_a_queue_there_is_nothing_to_detach() -> None:
    (problem,) = problems_of("queue.size=0", "queue.embeddings=stale")
    assert problem.startswith("queue.embeddings=stale:")
