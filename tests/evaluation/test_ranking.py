"""The ranking of a gallery against the complete softmax in float64; and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from geoclip.evaluation import retrieval
from geoclip.evaluation.details import reliability
from geoclip.evaluation.metrics import distance_km, nearest_location
from geoclip.evaluation.retrieval import Ranking, best_of_km, nearest_in_gallery, rank_gallery, recall

SCALE = 20.0
Floats = NDArray[np.float64]


def clustered(count: int, seed: int) -> Floats:
    """Places around a few towns, so that many lie within 25 and 200 km of each other."""
    rng = np.random.default_rng(seed)
    towns = np.random.default_rng(0).uniform((-60, -170), (70, 170), (8, 2))
    return towns[rng.integers(0, 8, count)] + rng.normal(0, 0.7, (count, 2))


class World:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.locations = clustered(700, 1)
        self.locations[600:] = self.locations[:100]  # a seventh twice
        self.embedded = F.normalize(torch.randn(700, 16), dim=1)
        self.embedded[600:] = self.embedded[:100]
        self.images = F.normalize(torch.randn(90, 16), dim=1)
        self.truth = clustered(90, 2)
        self.nearest = nearest_location(self.truth, self.locations)[0]

    def rank(self) -> Ranking:
        return rank_gallery(self.images, self.embedded, self.locations, self.nearest, SCALE)

    def probability(self) -> Floats:
        return (SCALE * self.images.double() @ self.embedded.double().T).softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("at_once", [1, 701 * 7, 10**9])
def test_chunks_agree_with_the_complete_softmax(world: World, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", at_once)
    found, probability = world.rank(), world.probability()
    cosine, row = nearest_in_gallery(world.images, world.embedded, 10)
    assert np.array_equal(world.locations[found.row_Nk.numpy()], world.locations[row.numpy()])  # or a copy of it
    torch.testing.assert_close(found.cosine_Nk, cosine)
    image = np.arange(90)
    assert found.probability_N == pytest.approx(probability[image, row[:, 0].numpy()], rel=1e-3)
    for km, mass in found.mass_km_N.items():
        guess = world.locations[row[:, 0].numpy()]
        apart = distance_km(np.repeat(guess, 700, axis=0), np.tile(world.locations, (90, 1)), "sphere")
        expected = (probability * (apart.reshape(90, 700) <= km)).sum(axis=1)
        assert mass == pytest.approx(expected, rel=1e-3)
        assert (mass >= found.probability_N * 0.999).all()


def test_the_nll_counts_all_rows_of_a_location(world: World) -> None:
    probability, nearest = world.probability(), world.locations[world.nearest]
    copies = (world.locations[None] == nearest[:, None]).all(axis=2)
    assert set(copies.sum(axis=1).tolist()) == {1, 2}
    expected = -np.log((probability * copies).sum(axis=1))
    assert world.rank().nll_N == pytest.approx(expected, abs=1.1e-3)


def test_chance_is_the_logarithm_of_the_gallery() -> None:
    locations = clustered(50, 3)
    same = torch.ones((50, 4)) / 2
    found = rank_gallery(same[:5], same, locations, np.arange(5), SCALE, k=3)
    assert found.nll_N == pytest.approx(np.log(50), abs=1e-3)
    assert found.row_Nk.tolist() == [[0, 1, 2]] * 5  # of equals the first
    assert found.probability_N == pytest.approx(1 / 50)


def test_recall_is_of_the_best_among_the_first_guesses(world: World) -> None:
    row = world.rank().row_Nk
    best = best_of_km(row, world.locations, world.truth)
    for image in range(90):
        km = distance_km(
            world.locations[row[image].numpy()], np.repeat(world.truth[image : image + 1], 10, axis=0), "sphere"
        )
        assert best[image] == pytest.approx(np.minimum.accumulate(km))
    shares = recall(best)
    assert shares[1][200].value < shares[5][200].value < shares[10][200].value
    assert shares[5][200].value == pytest.approx(100 * (best[:, 4] < 200).mean())
    assert shares[5][200].low < shares[5][200].value < shares[5][200].high


def test_a_gallery_of_three_has_three_predictions() -> None:
    best = best_of_km(torch.tensor([[2, 0, 1]]), clustered(3, 0), clustered(1, 1))
    shares = recall(best)
    assert shares[5] == shares[10] and best.shape == (1, 3)


def test_reliability_of_calibrated_over_and_underconfident_probabilities() -> None:
    rng = np.random.default_rng(0)
    share = rng.beta(0.5, 2, 60_000)
    calibrated = reliability(share, rng.random(60_000) < share)
    assert calibrated.ece < 0.01 and abs(calibrated.overconfidence) < 0.005
    assert [one.n for one in calibrated.bins] == [4000] * 15
    assert [one.confidence for one in calibrated.bins] == sorted(one.confidence for one in calibrated.bins)
    over = reliability(share, rng.random(60_000) < share**2)
    assert over.ece == pytest.approx((share - share**2).mean(), abs=0.01)
    assert over.overconfidence == pytest.approx(over.ece, abs=0.005)
    under = reliability(share**2, rng.random(60_000) < share)
    assert under.overconfidence < -0.05 and under.ece > 0.05


def test_the_calibration_error_by_hand() -> None:
    share, true = np.array([0.9, 0.1, 0.3, 0.7]), np.array([True, False, True, False])
    found = reliability(share, true, bins=2)
    assert [one.confidence for one in found.bins] == pytest.approx([0.2, 0.8])
    assert [one.share for one in found.bins] == [0.5, 0.5]
    assert found.ece == pytest.approx(0.3) and found.overconfidence == pytest.approx(0.0)
    assert len(reliability(share, true).bins) == 4  # one image each
    with pytest.raises(ValueError, match="no images"):
        reliability(share[:0], true[:0])
