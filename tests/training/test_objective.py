"""Which candidates a picture has, which of them count, and the other direction, against loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.config import LossConfig, QueueConfig
from geoclip.factory.training import build_objective
from geoclip.geo.geodesy import displaced, haversine_km, pairwise_km, uniform_on_sphere
from geoclip.model.geoclip import Embedded
from geoclip.training.losses import Objective
from geoclip.training.step import train_step
from tests.fixtures.training import Batches, Recipes, States

LOCATIONS = torch.tensor([[0.0, 0.0], [0.0, 0.1], [50.0, 50.0], [0.0, 0.0]])  # 11.1 km apart, far, the first again
QUEUE = torch.tensor([[50.0, 50.01], [-30.0, 10.0]])


def candidates(objective: Objective, seed: int) -> tuple[Tensor, Tensor]:
    draws = objective.draw(len(LOCATIONS), len(QUEUE), torch.Generator().manual_seed(seed))
    return objective.candidates(LOCATIONS, QUEUE, draws)


def embedded(rows: int, columns: int, views: int = 1) -> Embedded:
    generator = torch.Generator().manual_seed(0)
    image, location = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (rows * views, columns))
    return Embedded(image, location, torch.tensor(5.0))


def loss(objective: Objective, found: Embedded, present: Tensor | None = None) -> float:
    present = torch.ones(4) if present is None else present
    noisy, true = candidates(objective, 0)
    assert torch.equal(noisy, true), "without noise"
    return float(objective.pairs(LOCATIONS, true, present, present, 0)(found)[0])


def test_near_candidates_are_left_out_or_count_as_right_by_their_distance() -> None:
    found = embedded(4, 6)
    logits = found.scale * found.image_BD @ found.location_MD.T
    km = torch.tensor(
        [[haversine_km(a[None], b[None]).item() for b in torch.cat((LOCATIONS, QUEUE))] for a in LOCATIONS]
    )
    masked, softened = 0.0, 0.0
    for row in range(4):
        kept = [column for column in range(6) if column == row or (km[row, column] >= 25 and km[row, column] > 0)]
        masked -= logits[row, kept].log_softmax(dim=0)[kept.index(row)].item() / 4
        there = [column for column in range(6) if column == row or km[row, column] > 0]
        weight = (-km[row, there] / 25).exp()
        softened -= (weight / weight.sum() @ logits[row, there].log_softmax(dim=0)).item() / 4
    assert loss(Objective(near="mask", near_radius_km=25), found) == pytest.approx(masked, rel=1e-5)
    assert loss(Objective(near="soften", near_radius_km=25), found) == pytest.approx(softened, rel=1e-5)
    assert loss(Objective(), found) != pytest.approx(masked, rel=1e-3)


def test_the_other_direction_finds_the_picture_of_each_location_among_those_that_could_be_read() -> None:
    found, present = embedded(4, 6), torch.tensor([1.0, 1.0, 0.0, 1.0])
    logits = found.scale * found.location_MD[:4] @ found.image_BD.T
    by_hand = 0.0
    for row, kept in ((0, [0, 1]), (1, [0, 1, 3]), (3, [1, 3])):  # 0 and 3 have one location; 2 is broken
        by_hand -= logits[row, kept].log_softmax(dim=0)[kept.index(row)].item() / 3
    one_way = loss(Objective(), found, present)
    assert loss(Objective(kind="symmetric"), found, present) == pytest.approx((one_way + by_hand) / 2, rel=1e-5)


def test_several_views_weigh_as_much_as_one() -> None:
    found = embedded(4, 6, views=3)
    for kind in ("one_way", "symmetric"):
        alone = [loss(Objective(kind=kind), found._replace(image_BD=found.image_BD[view::3])) for view in range(3)]
        assert loss(Objective(kind=kind, views=3), found) == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_hard_negatives_are_near_their_picture_and_are_the_same_on_every_rank() -> None:
    objective = Objective(hard_negatives=3, hard_radius_km=100)
    noisy, true = candidates(objective, 5)
    assert noisy.shape == (4 + 2 + 12, 2) and torch.equal(noisy, true)
    distance = haversine_km(LOCATIONS.repeat_interleave(3, dim=0), noisy[6:])
    assert 99.9 < distance.min() < 130 and 170 < distance.max() < 200.1
    again, _ = candidates(objective, 5)
    assert torch.equal(noisy, again)


def test_locations_are_displaced_over_poles_and_the_antimeridian() -> None:
    uniform = torch.rand((100, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = displaced(torch.tensor([[89.9, 0.0], [0.0, 179.99]]), 500, 50, uniform)
    assert there[:, 0].abs().max() <= 90 and there[:, 1].abs().max() <= 180
    distance = pairwise_km(torch.tensor([[89.9, 0.0], [0.0, 179.99]]), there)
    own = torch.cat((distance[0, :50], distance[1, 50:]))
    assert own.min() > 499.9 and own.max() < 1000.1


def test_distances_of_all_pairs_are_those_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = uniform_on_sphere(40, generator), uniform_on_sphere(30, generator)
    other[0] = one[0]
    expected = haversine_km(one.repeat_interleave(30, dim=0), other.repeat(40, 1)).view(40, 30)
    torch.testing.assert_close(pairwise_km(one, other), expected, atol=1e-6, rtol=1e-9)


def test_views_reach_the_encoder_and_broken_ones_their_picture(
    new_state: States, new_batch: Batches, recipe: Recipes
) -> None:
    batch = new_batch(0)
    twice = replace(batch, images=batch.images[:, None].repeat(1, 2, 1, 1, 1))
    one, two = new_state(0), new_state(0)
    single = train_step(one, batch, recipe())
    same = train_step(two, twice, recipe(objective=Objective(views=2)))
    torch.testing.assert_close(same.sums, single.sums, atol=1e-6, rtol=1e-5)
    assert same.bad_rows_B.shape == (8,)
    for parameter, other in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, atol=1e-6, rtol=1e-5)


def test_a_fixed_temperature_stays(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    state = new_state(0)
    state.model.logit_scale.requires_grad_(False)
    before = state.model.logit_scale.item()
    train_step(state, new_batch(0), recipe(logit_scale_max=None))
    assert state.model.logit_scale.item() == before


def test_batch_and_queue_have_noise_of_their_own() -> None:
    """A displacement has two components: the mean of its square is twice the variance."""
    locations, queue = (uniform_on_sphere(4000, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    objective = build_objective(LossConfig(), QueueConfig(batch_noise_m=150.0, queue_noise_m=1000.0))
    draws = objective.draw(len(locations), len(queue), torch.Generator().manual_seed(0))
    noisy, true = objective.candidates(locations, queue, draws)
    assert torch.equal(true, torch.cat((locations, queue)))
    batch_m, queue_m = (1000 * haversine_km(noisy.double(), true.double())).split(4000)
    assert (batch_m.square().mean() / 2).sqrt().item() == pytest.approx(150, rel=0.05)
    assert (queue_m.square().mean() / 2).sqrt().item() == pytest.approx(1000, rel=0.05)
