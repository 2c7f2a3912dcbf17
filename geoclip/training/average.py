"""A running average of the weights, kept beside them: exponential (EMA) or stochastic weight averaging (SWA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn


@dataclass(kw_only=True, slots=True)
class WeightAverage:
    """The average of what is trained in a model.

    Args:
        parameters: what is averaged.
        average: like `parameters`; without meaning until something was averaged.
        decay: of the exponential average; None for the plain mean (SWA).
        first_step: the first step whose weights count.
        every_steps: weights of every so many steps count.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; the
    exponential form: Polyak, Juditsky, 1992.
    """

    parameters: list[Tensor]
    average: list[Tensor]
    decay: float | None
    first_step: int = 0
    every_steps: int = 1
    count: int = 0  # weights averaged so far

    @classmethod
    def of(cls, model: nn.Module, **how: Any) -> WeightAverage:
        """Of all trained parameters of `model`; `how` as in the class."""
        parameters: list[Tensor] = [one for one in model.parameters() if one.requires_grad]
        return cls(parameters=parameters, average=[one.detach().clone() for one in parameters], **how)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take up the weights after step `step`, if they count. Does not wait for the device."""
        if step < self.first_step or (step - self.first_step) % self.every_steps:
            return
        if self.count == 0:
            torch._foreach_copy_(self.average, self.parameters)
        else:
            merge = get_swa_multi_avg_fn() if self.decay is None else get_ema_multi_avg_fn(self.decay)
            merge(self.average, self.parameters, self.count)
        self.count += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model with the average for weights; its own come back afterwards, bit for bit."""
        if self.count == 0:
            yield
            return
        with torch.no_grad():
            own = [one.detach().clone() for one in self.parameters]
            torch._foreach_copy_(self.parameters, self.average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"average": list(self.average), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved average of the same model."""
        with torch.no_grad():
            for mine, saved in zip(self.average, state["average"], strict=True):
                mine.copy_(saved)
        self.count = state["count"]
