"""The recorded step: on a GPU the eager step's numbers; its host part, and what a checkpoint keeps, anywhere."""

from __future__ import annotations

import pytest
import torch

from geoclip.data.batch import SkipReport
from geoclip.training.losses import Objective
from geoclip.training.state import rank_tree, state_tree
from geoclip.training.step import (
    GraphedStep,
    _learning_rates_on_device,
    device_step,
    end_step,
    prepare_step,
    train_step,
)
from tests.fixtures.training import Batches, Recipes, States

NOISY = Objective(batch_noise_m=150.0, queue_noise_m=1000.0, hard_negatives=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_steps_are_the_eager_steps(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    device, plan = torch.device("cuda"), recipe(objective=NOISY)
    eager, recorded = (new_state(1, frozen=True) for _ in range(2))
    step = GraphedStep()
    for state in (eager, recorded):
        state.model.to(device)
        state.queue.to(device)
    for number in range(8):
        batch = new_batch(number, features=True).to(device)
        assert torch.equal(train_step(eager, batch, plan).sums, step(recorded, batch, plan).sums)
    for one, other in zip(eager.model.parameters(), recorded.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(eager.queue.gps_deg_S2, recorded.queue.gps_deg_S2)


def test_the_device_part_reads_what_changes_from_step_to_step_from_tensors(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    """A graph keeps Python's numbers as they were recorded: the learning rate must not be one of them."""
    plan = recipe(objective=NOISY, lr_at=lambda step: 1e-2 / (1 + step))
    usual, recordable = new_state(1), new_state(1)
    _learning_rates_on_device(recordable)
    for group in recordable.optimizer.param_groups:
        group["capturable"] = False  # a CPU's optimizer refuses it
    for number in range(3):
        batch = new_batch(number)
        train_step(usual, batch, plan)
        draws = prepare_step(recordable, batch, plan)
        device_step(recordable, batch, draws, plan)
        end_step(recordable, batch)
        lr = recordable.optimizer.param_groups[0]["lr"]
        assert isinstance(lr, torch.Tensor) and float(lr) == pytest.approx(1e-2 / (1 + number))
    for one, other in zip(usual.model.parameters(), recordable.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    groups = state_tree(recordable, [rank_tree(recordable)], SkipReport())["optimizer"]["param_groups"]
    assert all(isinstance(group["lr"], float) and group["capturable"] is False for group in groups)
