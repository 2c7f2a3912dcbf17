"""The configuration's numbers reach the optimizer, the schedule, the average of the weights and the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from geoclip.config import (
    AverageKind,
    OptimConfig,
    OptimizerKind,
    Precision,
    QueueConfig,
    QueueStart,
    TrainConfig,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.data.shard_index import coordinates_in
from geoclip.data.shards import all_samples, count_samples
from geoclip.factory.training import (
    build_autocast,
    build_average,
    build_optimizer,
    build_queue,
    build_recipe,
    last_step,
)
from geoclip.training.state import TrainState

CPU = torch.device("cpu")
SAMPLES = 800


def rates(*overrides: str) -> list[float]:
    """The learning rate of every step, and of the one after the last."""
    small = ("optim.batch_size=8", "optim.lr=0.5", "optim.epochs=2", *overrides)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        recipe = build_recipe(typed(compose("train", list(small)), TrainConfig, lambda _: []), SAMPLES, CPU)
    return [recipe.lr_at(step) for step in range(recipe.last_step + 1)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 100), ({"epochs": 3}, 300), ({"epochs": 3, "max_steps": 50}, 50), ({"max_samples": 88}, 11)],
)
def test_a_run_has_whole_batches_of_all_epochs_up_to_its_limits(changes: dict[str, int], expected: int) -> None:
    assert last_step(OptimConfig(**({"batch_size": 8, "epochs": 1} | changes)), SAMPLES) == expected  # type: ignore[arg-type]


def test_the_step_schedule_falls_once_per_epoch() -> None:
    found = rates("optim.schedule=step", "optim.step_gamma=0.5")
    assert len(found) == 201
    assert found[:100] == pytest.approx([0.5] * 100) and found[100:200] == pytest.approx([0.25] * 100)


def test_the_cosine_schedule_rises_in_warmup_steps_and_ends_at_the_last_step() -> None:
    found = rates("optim.schedule=cosine", "optim.warmup_steps=5", "optim.max_steps=45")
    assert len(found) == 46
    assert found[:6] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert found[25] == pytest.approx(0.25) and found[45] == pytest.approx(0)


def test_swa_has_its_own_rate_from_its_start() -> None:
    found = rates("optim.schedule=cosine", "optim.average=swa", "optim.swa_start=0.75", "optim.swa_lr=7e-3")
    assert found[150:] == pytest.approx([7e-3] * 51)
    assert found[149] == pytest.approx(rates("optim.schedule=cosine")[149]) != 7e-3


def test_averages_have_the_configured_decay_start_and_interval(new_state: Callable[..., TrainState]) -> None:
    model = new_state().model
    ema = build_average(OptimConfig(average=AverageKind.ema, ema_decay=0.9), model, SAMPLES)
    assert ema is not None and (ema.decay, ema.first_step, ema.every_steps) == (0.9, 0, 1)
    small: dict[str, Any] = {"average": AverageKind.swa, "swa_start": 0.75, "batch_size": 8, "epochs": 2}
    for every, expected in ((None, 100), (3, 3)):
        swa = build_average(OptimConfig(**small, swa_every_steps=every), model, SAMPLES)
        assert swa is not None and (swa.decay, swa.first_step, swa.every_steps) == (None, 150, expected)
    assert build_average(OptimConfig(), model, SAMPLES) is None


@pytest.mark.parametrize(("kind", "shrinks"), [(OptimizerKind.adam, False), (OptimizerKind.adamw, True)])
def test_weight_decay_shrinks_weights_by_its_own_in_adamw_alone(
    new_state: Callable[..., TrainState], kind: OptimizerKind, shrinks: bool
) -> None:
    """Without a gradient AdamW multiplies weights by 1 - lr · decay; in Adam the decay is the gradient."""
    model = new_state().model
    before = [one.detach().clone() for one in model.parameters()]
    optimizer = build_optimizer(OptimConfig(kind=kind, lr=1e-2, weight_decay=0.5), model)
    for one in model.parameters():
        one.grad = torch.zeros_like(one)
    optimizer.step()
    for one, old in zip(model.parameters(), before, strict=True):
        expected = old * (1 - 1e-2 * 0.5) if shrinks else old - 1e-2 * old.sign()
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-4)


def test_the_queue_starts_from_what_its_configuration_names(tiny_shards: Callable[..., Any]) -> None:
    made = tiny_shards([6, 5])
    subset = all_samples(count_samples(sorted(map(str, made.root.rglob("*.tar")))))
    own = {tuple(row) for row in torch.from_numpy(coordinates_in(subset, 99)).float().tolist()}
    assert len(own) == 11
    for start, size in ((QueueStart.train, 11), (QueueStart.sphere, 40), (QueueStart.released, 40)):
        queue = build_queue(QueueConfig(start=start, size=size), subset, seed=1)
        rows = {tuple(row) for row in queue.negatives().tolist()}
        assert len(queue) == len(rows) == size
        assert (rows == own) is (start is QueueStart.train)
        norm_S = queue.negatives().norm(dim=1)
        assert torch.allclose(norm_S, torch.ones(size)) is (start is QueueStart.released)
        again, other = (build_queue(QueueConfig(start=start, size=size), subset, seed=seed) for seed in (1, 2))
        assert torch.equal(queue.negatives(), again.negatives())
        assert not torch.equal(queue.negatives(), other.negatives())


@pytest.mark.parametrize(
    ("precision", "expected"),
    [(Precision.float32, None), (Precision.tf32, None), (Precision.bfloat16, torch.bfloat16), (Precision.auto, None)],
)
def test_matrix_products_on_a_processor_have_the_configured_type(
    precision: Precision, expected: torch.dtype | None
) -> None:
    assert build_autocast(precision, CPU) is expected
