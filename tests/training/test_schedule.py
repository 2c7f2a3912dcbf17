"""Learning rates in closed form."""

from __future__ import annotations

from itertools import pairwise

import pytest

from geoclip.training.step import step_lr, warmup_cosine_lr


def test_step_lr_decays_once_an_epoch() -> None:
    rates = [step_lr(3e-5, step, batch_size=8, samples_per_epoch=80, gamma=0.87) for step in (0, 9, 10, 25)]
    assert rates == pytest.approx([3e-5, 3e-5, 3e-5 * 0.87, 3e-5 * 0.87**2])


def test_cosine_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine_lr(1.0, step, warmup_steps=10, total_steps=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0, abs=1e-12)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
