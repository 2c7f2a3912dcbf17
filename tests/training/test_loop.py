"""What is validated and kept: the averaged weights where there is an average."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from geoclip.data.batch import Batch
from geoclip.distributed import World
from geoclip.training.loop import Hooks, train
from geoclip.training.state import TrainState, WeightAverage
from geoclip.training.step import Recipe

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("decay", [0.9, None], ids=["EMA", "SWA"])
def test_validation_sees_the_average_and_training_its_own_weights(
    new_state: Callable[..., TrainState],
    new_batch: Callable[..., Batch],
    recipe: Callable[..., Recipe],
    decay: float | None,
) -> None:
    state, plain = new_state(), new_state()
    state.average = WeightAverage.of(state.model, decay=decay)
    validated: list[list[torch.Tensor]] = []

    def validate(judged: TrainState) -> bool:
        validated.append([one.detach().clone() for one in judged.model.parameters()])
        return True

    for one in (state, plain):
        hooks = Hooks(
            record=lambda *_: None,
            validate=validate if one is state else lambda _: True,
            checkpoint=lambda _: None,
            validate_every=2,
        )
        train(one, (new_batch(number) for number in range(4)), recipe(last_step=4), hooks, WORLD)
    assert len(validated) == 2, "after steps 2 and 4"
    own, average = list(state.model.parameters()), state.average.average
    assert all(torch.equal(seen, mean) for seen, mean in zip(validated[-1], average, strict=True))
    assert not all(torch.equal(seen, one) for seen, one in zip(validated[-1], own, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(own, plain.model.parameters(), strict=True))
