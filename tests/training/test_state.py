"""A state is restored bit-identically, or refused if it does not fit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from geoclip.data.batch import Skip, SkipReport
from geoclip.errors import CheckpointError
from geoclip.training.checkpoint import pack, read_checkpoint, write_checkpoint
from geoclip.training.losses import Objective
from geoclip.training.state import (
    TrainState,
    generator_states,
    rank_tree,
    restore_state,
    seed_generators,
    state_tree,
    weights_tree,
)
from geoclip.training.step import train_step
from tests.fixtures.training import Batches, Recipes, States

PATH = Path("x.safetensors")


def numpy_draw() -> float:
    return float(np.random.random())  # noqa: NPY002 (the global generator is what is tested)


def through_a_file(state: TrainState, folder: Path) -> dict[str, object]:
    write_checkpoint(folder / "x.safetensors", pack(state_tree(state, [rank_tree(state)], state.skipped)))
    return read_checkpoint(folder / "x.safetensors")


def test_a_restored_state_continues_bit_identically(
    tmp_path: Path, new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    """Dropout, noise on coordinates and an average of the weights make every piece of the state matter."""
    state, restored = (new_state(seed, dropout=0.5, ema=0.9) for seed in (1, 2))
    noisy = recipe(objective=Objective(batch_noise_m=500.0, queue_noise_m=500.0), grad_clip=1.0)
    for number in range(3):
        state.sums += train_step(state, new_batch(number), noisy).sums
        state.summed_steps += 1
    state.skipped.add([Skip(shard="a.tar", key="k", reason="broken")])
    restore_state(restored, through_a_file(state, tmp_path), PATH)
    generators = generator_states()
    sums = []
    for one in (state, restored):
        restore_state(one, through_a_file(one, tmp_path), PATH) if one is restored else None
        seed_generators(0)
        for number in range(3, 6):
            sums.append(train_step(one, new_batch(number), noisy).sums)
    assert all(torch.equal(one, other) for one, other in zip(sums[:3], sums[3:], strict=True))
    assert generators["torch"].shape and restored.step == 6 and restored.summed_steps == 3
    assert torch.equal(restored.queue.negatives(), state.queue.negatives())
    assert restored.skipped == state.skipped
    for ours, theirs in zip(state.model.parameters(), restored.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert state.average is not None and restored.average is not None
    for mean, other in zip(state.average.average, restored.average.average, strict=True):
        assert torch.equal(mean, other)


def test_every_generator_is_restored(tmp_path: Path, new_state: States) -> None:
    seed_generators(5)
    random.random(), numpy_draw(), torch.rand(3)
    saved = through_a_file(new_state(), tmp_path)
    seed_generators(7)
    restore_state(new_state(), saved, PATH)
    here = random.random(), numpy_draw(), torch.rand(1).item()
    seed_generators(8)
    restore_state(new_state(), saved, PATH)
    assert here == (random.random(), numpy_draw(), torch.rand(1).item())
    restore_state(new_state(), saved, PATH, rank=1, world_size=2)  # a rank more than before draws numbers of its own
    assert random.random() != here[0]


def test_a_frozen_backbone_is_not_in_the_checkpoint(new_state: States) -> None:
    for frozen in (True, False):
        names = weights_tree(new_state(frozen=frozen).model, 1)["model"]
        assert any("backbone" in name for name in names) is not frozen


def test_of_a_backbone_only_what_is_trained_is_in_the_checkpoint(new_state: States) -> None:
    model = new_state().model
    model.image_encoder.backbone[1].weight.requires_grad_(False)  # type: ignore[index]
    names = [name for name in weights_tree(model, 1)["model"] if "backbone" in name]
    assert names == ["image_encoder.backbone.1.bias"]


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, new_state: States) -> None:
    saved = through_a_file(new_state(), tmp_path)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is of another architecture"):
        restore_state(new_state(embedding_dim=8), saved, PATH)
    with pytest.raises(CheckpointError, match=str(PATH)):
        restore_state(new_state(), weights_tree(new_state().model, 1), PATH)


def test_averages_follow_their_formula(new_state: States) -> None:
    from geoclip.training.state import WeightAverage

    model = new_state().model
    swa = WeightAverage.of(model, decay=None, first_step=2, every_steps=2)
    ema = WeightAverage.of(model, decay=0.75)
    for step in range(1, 7):
        with torch.no_grad():
            model.logit_scale.fill_(float(step))
        for average in (swa, ema):
            average.update(step)
    expected = 1.0
    for step in range(2, 7):
        expected = 0.75 * expected + 0.25 * step
    for average, value in ((swa, (2 + 4 + 6) / 3), (ema, expected)):
        with average.swapped_in():
            assert model.logit_scale.item() == pytest.approx(value)
        assert model.logit_scale.item() == 6


def test_another_number_of_ranks_keeps_the_means(new_state: States) -> None:
    ranks = [rank_tree(new_state()) | {"sums": torch.tensor(sums)} for sums in ([2.0, 1, 3, 5], [4.0, 0, 1, 5])]
    saved = state_tree(new_state(), ranks, SkipReport())
    for size in (1, 2, 4):
        states = [new_state() for _ in range(size)]
        for rank, state in enumerate(states):
            restore_state(state, saved, PATH, rank=rank, world_size=size)
        sums = torch.stack([state.sums for state in states])
        assert sums.mean(dim=0)[[0, 1, 3]].tolist() == [3.0, 0.5, 5.0] and sums[:, 2].sum() == 4
