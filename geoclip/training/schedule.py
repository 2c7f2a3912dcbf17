"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable


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
