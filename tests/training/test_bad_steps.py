"""A gradient that is not finite moves nothing, is counted and named; too many end the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from geoclip.data.batch import Batch
from geoclip.distributed import World
from geoclip.errors import GeoclipError
from geoclip.training.loop import Hooks, train
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe, train_step

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


def run(state: TrainState, batches: Iterator[Batch], recipe: Recipe) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    hooks = Hooks(
        record=lambda _, values: rows.append(values),
        validate=lambda _: True,
        checkpoint=lambda _: None,
        last_good=lambda: "runs/x/checkpoints/step-00000002.safetensors",
        record_every=4,
    )
    train(state, batches, recipe, hooks, WORLD)
    return rows


def test_it_moves_nothing_but_the_data(
    new_state: Callable[..., TrainState], new_batch: Callable[..., Batch], recipe: Callable[..., Recipe]
) -> None:
    state = new_state(frozen=True)
    train_step(state, new_batch(0, features=True), recipe())
    before = [p.clone() for p in state.model.parameters()]
    moments = [
        value.clone() for values in state.optimizer.state.values() for value in values.values()
    ]  # the step count among them
    batch = new_batch(1, features=True)
    batch.images[3, 0] = math.nan
    outcome = train_step(state, batch, recipe(grad_clip=1.0))
    assert outcome.sums.tolist()[3] == 0 and outcome.sums.isfinite().all()
    assert outcome.bad_rows_B.tolist() == [row == 3 for row in range(8)]
    assert all(torch.equal(p, old) for p, old in zip(state.model.parameters(), before, strict=True))
    after = [value for values in state.optimizer.state.values() for value in values.values()]
    assert all(torch.equal(value, old) for value, old in zip(after, moments, strict=True))
    assert state.step == 2 and torch.equal(state.queue.negatives()[2:], batch.gps_deg_B2[-4:])
    assert train_step(state, new_batch(2, features=True), recipe()).sums[3] == 1


def test_it_is_counted_and_its_picture_named(
    new_state: Callable[..., TrainState],
    new_batch: Callable[..., Batch],
    recipe: Callable[..., Recipe],
    caplog: pytest.LogCaptureFixture,
) -> None:
    batches = [new_batch(number, features=True) for number in range(8)]
    batches[2].images[5] = math.inf
    state = new_state(frozen=True)
    rows = run(state, iter(batches), recipe(last_step=8))
    assert "step 3: the gradient is not finite; the weights stay as they were. Not finite: 2-5" in caplog.text
    assert [row.get("bad_steps") for row in rows] == [1, 1] and state.bad_in_a_row == 0
    assert all(math.isfinite(row["loss"]) for row in rows)

    others = new_state(frozen=True)
    good = run(others, (batches[n] if n != 2 else batches[2] for n in range(8)), recipe(last_step=8))
    assert [row["loss"] for row in good] == [row["loss"] for row in rows], "and it is the same every time"


def test_too_many_in_a_row_end_the_run_and_name_the_last_good_checkpoint(
    new_state: Callable[..., TrainState], new_batch: Callable[..., Batch], recipe: Callable[..., Recipe]
) -> None:
    def bad() -> Iterator[Batch]:
        for number in range(20):
            batch = new_batch(number, features=True)
            if number > 2:
                batch.gps_deg_B2[:] = math.nan  # no single picture is to blame
            yield batch

    with pytest.raises(GeoclipError) as ended:
        run(new_state(frozen=True), bad(), recipe(last_step=20, max_bad_steps=3))
    for part in (
        "4 steps in a row up to step 7",
        "optim.max_bad_steps=3",
        "No single picture; in the batch: 6-0, 6-1",
        "step-00000002.safetensors",
        "lower optim.lr",
    ):
        assert part in str(ended.value)
