"""Learning rates in closed form."""

from __future__ import annotations

from itertools import pairwise

import pytest

from geoclip.config import OptimConfig
from geoclip.factory.training import build_optimizer
from geoclip.training.state import BACKBONE
from geoclip.training.step import step_lr, train_step, warmup_cosine_lr
from tests.fixtures.training import Batches, Recipes, States


def test_step_lr_decays_once_an_epoch() -> None:
    rates = [step_lr(3e-5, step, batch_size=8, samples_per_epoch=80, gamma=0.87) for step in (0, 9, 10, 25)]
    assert rates == pytest.approx([3e-5, 3e-5, 3e-5 * 0.87, 3e-5 * 0.87**2])


def test_cosine_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine_lr(1.0, step, warmup_steps=10, total_steps=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0, abs=1e-12)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


@pytest.mark.parametrize(("encoder_lr", "expected"), [(1e-4, 1e-4), (None, 1e-2)])
def test_the_backbone_learns_at_its_own_rate(
    new_state: States, new_batch: Batches, recipe: Recipes, encoder_lr: float | None, expected: float
) -> None:
    """Adam's first step moves a weight by its learning rate, whatever the gradient."""
    state = new_state()
    optim = OptimConfig(lr=1e-2, encoder_lr=encoder_lr, weight_decay=0.0)
    state.optimizer = build_optimizer(optim, state.model)
    before = {name: one.detach().clone() for name, one in state.model.named_parameters()}
    train_step(state, new_batch(0), recipe())
    moved = {"backbone": 0.0, "rest": 0.0}
    for name, one in state.model.named_parameters():
        part = "backbone" if name.startswith(BACKBONE) else "rest"
        moved[part] = max(moved[part], (one - before[name]).abs().max().item())
    assert moved == pytest.approx({"backbone": expected, "rest": 1e-2}, rel=0.01)
