"""The loop: validation, pictures that cannot be read, gradients that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from geoclip.data.batch import Batch, Skip
from geoclip.errors import DataError, GeoclipError
from geoclip.training.loop import skipped_on_all_ranks
from geoclip.training.state import TrainState, WeightAverage
from geoclip.training.step import train_step
from tests.fixtures.training import Batches, Recipes, States, run_loop


@pytest.mark.parametrize("decay", [0.9, None], ids=["EMA", "SWA"])
def test_validation_uses_the_average_and_training_its_own_weights(
    new_state: States, new_batch: Batches, recipe: Recipes, decay: float | None
) -> None:
    state, plain = new_state(), new_state()
    state.average = WeightAverage.of(state.model, decay=decay)
    validated: list[list[torch.Tensor]] = []

    def validate(found: TrainState) -> bool:
        validated.append([one.detach().clone() for one in found.model.parameters()])
        return True

    run_loop(state, map(new_batch, range(4)), recipe(), validate=validate, validate_every=2)
    run_loop(plain, map(new_batch, range(4)), recipe())
    assert len(validated) == 2
    own, average = list(state.model.parameters()), state.average.average
    assert all(torch.equal(one, mean) for one, mean in zip(validated[-1], average, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(validated[-1], own, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(own, plain.model.parameters(), strict=True))


@pytest.fixture
def broken(new_batch: Batches) -> Callable[[int], Iterator[Batch]]:
    """`broken(2)`: batches of 8 pictures, of which 2 cannot be read."""

    def batches(count: int) -> Iterator[Batch]:
        for number in range(12):
            batch = new_batch(number)
            batch.present_B = torch.arange(8) >= count
            batch.skipped = [Skip(shard="000007.tar", key=str(row), reason="truncated") for row in range(count)]
            yield batch

    return batches


@pytest.mark.parametrize(("count", "steps", "limit"), [(2, 12, 0.3), (8, 4, 1.0)])
def test_broken_pictures_are_counted_and_the_loss_is_finite(
    new_state: States, recipe: Recipes, broken: Callable[[int], Iterator[Batch]], count: int, steps: int, limit: float
) -> None:
    state = new_state()
    rows = run_loop(state, broken(count), recipe(last_step=steps, max_bad_fraction=limit), record_every=4)
    assert [row["broken"] for row in rows] == [4 * count] * (steps // 4)
    assert skipped_on_all_ranks(state).counts.total() == steps * count
    assert all(math.isfinite(row["loss"]) and (row["loss"] == 0) == (count == 8) for row in rows)


def test_too_many_broken_pictures_end_the_run_and_name_the_shards(
    new_state: States, recipe: Recipes, broken: Callable[[int], Iterator[Batch]]
) -> None:
    with pytest.raises(DataError, match=r"12 of 32 .*data\.max_bad_fraction=0\.3.*000007\.tar \(12\)"):
        run_loop(new_state(), broken(3), recipe(last_step=12, max_bad_fraction=0.3), record_every=4)


def test_a_nonfinite_gradient_moves_only_the_queue(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    state = new_state(frozen=True)

    def optimized() -> list[torch.Tensor]:
        moments = [value for values in state.optimizer.state.values() for value in values.values()]
        return [one.clone() for one in (*state.model.parameters(), *moments)]  # the step count is a moment too

    train_step(state, new_batch(0, features=True), recipe())
    before, batch = optimized(), new_batch(1, features=True)
    batch.images[3, 0] = math.nan
    outcome = train_step(state, batch, recipe(grad_clip=1.0))
    assert outcome.sums.tolist()[3] == 0 and outcome.sums.isfinite().all()
    assert outcome.bad_rows_B.tolist() == [row == 3 for row in range(8)]
    assert all(torch.equal(one, other) for one, other in zip(optimized(), before, strict=True))
    assert state.step == 2 and torch.equal(state.queue.negatives()[2:], batch.gps_deg_B2[-4:])
    assert train_step(state, new_batch(2, features=True), recipe()).sums[3] == 1


def test_a_nonfinite_gradient_is_counted_and_its_picture_named(
    new_state: States, new_batch: Batches, recipe: Recipes, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [new_batch(number, features=True) for number in range(8)]
    batches[2].images[5] = math.inf
    losses = []
    for _ in range(2):
        state = new_state(frozen=True)
        rows = run_loop(state, iter(batches), recipe(last_step=8), record_every=4)
        assert [row.get("bad_steps") for row in rows] == [1, 1] and state.bad_in_a_row == 0
        losses.append([row["loss"] for row in rows])
    assert losses[0] == losses[1] and all(map(math.isfinite, losses[0]))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2 and all("step 3" in text and "2-5" in text for text in warnings)


def test_too_many_nonfinite_gradients_end_the_run_and_name_the_last_checkpoint(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    def bad() -> Iterator[Batch]:
        for number in range(20):
            batch = new_batch(number, features=True)
            if number > 2:
                batch.gps_deg_B2[:] = math.nan  # in no single picture
            yield batch

    plan = recipe(last_step=20, max_bad_steps=3)
    with pytest.raises(GeoclipError, match=r"4 .*step 7.*optim\.max_bad_steps=3.*6-0, 6-1.*last\.safetensors") as error:
        run_loop(new_state(frozen=True), bad(), plan, last_good=lambda: "last.safetensors", record_every=4)
    assert "optim.lr" in str(error.value)
