"""Guarantees of one step: gradient clip, logit scale, precision, noise, means over ranks, and the best weights kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from geoclip.data.batch import Batch
from geoclip.distributed import World
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.metrics import summarise
from geoclip.geo.geodesy import displaced
from geoclip.model.geoclip import Embedded
from geoclip.runs.metrics import Recorder
from geoclip.training.checkpoint import CheckpointWriter, read_checkpoint
from geoclip.training.hooks import RunContext, run_hooks
from geoclip.training.losses import Objective
from geoclip.training.preemption import StopRequest
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe, matrix_products, train_step

States = Callable[..., TrainState]
Batches = Callable[..., Batch]
Recipes = Callable[..., Recipe]


def gradients(state: TrainState) -> Tensor:
    return torch.cat([one.grad.flatten() for one in state.model.parameters() if one.grad is not None])


def test_the_gradient_is_clipped_to_its_norm(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    free, clipped = new_state(0), new_state(0)
    train_step(free, new_batch(0), recipe())
    train_step(clipped, new_batch(0), recipe(grad_clip=1e-3))
    assert gradients(free).norm() > 1e-2
    torch.testing.assert_close(gradients(clipped), gradients(free) * (1e-3 / gradients(free).norm()))


@pytest.mark.parametrize(("largest", "expected"), [(20.0, 20.0), (None, 50.0), (100.0, 50.0)])
def test_the_logit_scale_stays_below_its_limit(
    new_state: States, new_batch: Batches, recipe: Recipes, largest: float | None, expected: float
) -> None:
    state = new_state(0)
    with torch.no_grad():
        state.model.logit_scale.fill_(math.log(50))
    train_step(state, new_batch(0), recipe(logit_scale_max=largest, lr_at=lambda step: 1e-6))
    assert state.model.logit_scale.exp().item() == pytest.approx(expected, rel=1e-4)


def test_embeddings_are_of_autocasts_type_and_logits_of_float32(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    batch, model = new_batch(0), new_state(0).model
    candidates_M2 = torch.cat((batch.gps_deg_B2, new_state(0).queue.negatives()))

    def loss(embedded: torch.dtype | None, logits: torch.dtype | None) -> float:
        with torch.no_grad(), matrix_products(torch.device("cpu"), embedded):
            found = model(batch.images, candidates_M2)
        with torch.no_grad(), matrix_products(torch.device("cpu"), logits):
            logits_BM = (found.scale * found.image_BD @ found.location_MD.T).float()
        return F.cross_entropy(logits_BM, torch.arange(len(logits_BM))).item()

    mine = train_step(new_state(0), batch, recipe(autocast=torch.bfloat16)).sums[0].item()
    assert mine == pytest.approx(loss(torch.bfloat16, None), abs=1e-6)
    for other in ((None, None), (torch.bfloat16, torch.bfloat16)):
        assert mine != pytest.approx(loss(*other), abs=1e-5)


def test_a_detached_queue_has_the_queues_noise(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    """Noise of a thousand kilometres makes another loss."""
    noisy = Objective(queue_noise_m=1e6)
    losses = [
        train_step(new_state(0), new_batch(0), recipe(objective=objective, queue_embeddings=embeddings)).sums[0]
        for objective, embeddings in ((noisy, "encoded"), (noisy, "detached"), (Objective(), "encoded"))
    ]
    torch.testing.assert_close(losses[0], losses[1])
    assert abs(losses[0] - losses[2]) > 1e-4


def test_noise_is_new_in_every_step() -> None:
    objective, generator = Objective(batch_noise_m=1.0, queue_noise_m=1.0, hard_negatives=1), torch.Generator()
    one, other = (objective.draw(3, 4, generator) for _ in range(2))
    for name, shape in (("batch_G2", (3, 2)), ("queue_S2", (4, 2)), ("hard_H2", (3, 2))):
        first, second = getattr(one, name), getattr(other, name)
        assert first.shape == shape and not torch.equal(first, second)


def test_hard_negatives_are_in_every_direction() -> None:
    uniform_K2 = torch.rand((400, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    around_K2 = displaced(torch.tensor([[10.0, 20.0]]), 100, 400, uniform_K2) - torch.tensor([10.0, 20.0])
    quadrants = torch.bincount(2 * (around_K2[:, 0] > 0).long() + (around_K2[:, 1] > 0).long(), minlength=4)
    assert quadrants.min() > 70


def test_the_sigmoid_loss_adds_the_models_bias_to_every_logit() -> None:
    image_BD, location_MD = F.normalize(torch.randn(3, 4), dim=1), F.normalize(torch.randn(3, 4), dim=1)
    gps_deg_B2, present_B = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.ones(3)
    pairs = Objective(kind="sigmoid").pairs(gps_deg_B2, gps_deg_B2, present_B, present_B, 0)
    scale, bias = torch.tensor(7.0), torch.tensor(-3.0)
    sign_BM = 2 * torch.eye(3) - 1
    expected = -F.logsigmoid(sign_BM * (scale * image_BD @ location_MD.T + bias)).sum() / 3
    torch.testing.assert_close(pairs(Embedded(image_BD, location_MD, scale, bias))[0], expected)


def test_both_directions_of_the_symmetric_loss_teach_both_encoders() -> None:
    """Loss and gradients against the cross-entropy of rows and of columns, by autograd alone."""
    gps_deg_B2, present_B = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.ones(3)
    image_BD, location_MD = (torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    learnt = (image_BD.requires_grad_(), location_MD.requires_grad_())
    logits_BM, own_B = 5 * image_BD @ location_MD.T, torch.arange(3)
    expected = (F.cross_entropy(logits_BM, own_B) + F.cross_entropy(logits_BM.T, own_B)) / 2
    pairs = Objective(kind="symmetric").pairs(gps_deg_B2, gps_deg_B2, present_B, present_B, 0)
    loss, _ = pairs(Embedded(image_BD, location_MD, torch.tensor(5.0)))
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(*(torch.autograd.grad(one, learnt) for one in (loss, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is rank 0 of 2. Rank 1 has the same batch; in every sum over ranks it adds 1 to each element."""

    def all_gather(gathered: list[Tensor], own: Tensor) -> None:
        for one in gathered:
            one.copy_(own)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "all_reduce", lambda values: values.add_(1))


@pytest.mark.usefixtures("second_rank")
def test_a_batch_in_parts_has_the_mean_gradient_of_all_ranks(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    """DDP takes the mean elsewhere, which is absent here: without parts the gradient is this rank's own."""
    own, shared = new_state(0), new_state(0)
    train_step(own, new_batch(0), recipe())
    train_step(shared, new_batch(0), recipe(parts=2))
    torch.testing.assert_close(gradients(shared), (gradients(own) + 1) / 2)
    assert shared.samples_seen == 2 * len(new_batch(0).keys)


def test_the_weights_of_the_highest_geoscore_are_kept(new_state: States, recipe: Recipes, tmp_path: Path) -> None:
    errors_km = iter((3000.0, 100.0, 900.0, 50.0))

    def validate(*_: Any) -> tuple[Any, None]:
        return SimpleNamespace(accuracy=summarise(np.full(4, next(errors_km)))), None

    validation: Any = SimpleNamespace(run=validate)
    best, kept = tmp_path / "checkpoints" / "best.safetensors", []
    with Recorder(tmp_path / "metrics.jsonl") as recorder, CheckpointWriter(best.parent, keep=1) as writer:
        context = RunContext(
            folder=tmp_path,
            world=World(rank=0, size=1, device=torch.device("cpu")),
            stop=StopRequest(),
            gallery=Gallery(name="origin", gps_deg_G2=torch.zeros(1, 2, dtype=torch.float64)),
            val_shards=[],
            files={},
            choices={},
            recipe=recipe(last_step=99),
            recorder=recorder,
            writer=writer,
        )
        hooks, state = run_hooks(context, validation, {}), new_state(0)
        for state.step in (1, 2, 3, 4):
            assert hooks.validate(state)
            writer.wait()
            kept.append(read_checkpoint(best)["counters"]["step"])
    assert kept == [1, 2, 2, 4]
