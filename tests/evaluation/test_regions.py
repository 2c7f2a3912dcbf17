"""Accuracy by country, continent and distance to the training locations."""

from __future__ import annotations

import numpy as np
import pytest

from geoclip.evaluation.details import TRAINING_BINS, by_group, look_up_regions, region_accuracy, training_bins
from geoclip.evaluation.metrics import summarise

PARIS, BERLIN, WINDHOEK, ATLANTIC, MALE = (
    [48.8566, 2.3522], [52.52, 13.405], [-22.56, 17.08], [30.0, -40.0], [4.1755, 73.5093],
)  # fmt: skip


def test_regions_of_truths_and_predictions() -> None:
    truth = np.array([PARIS, WINDHOEK, ATLANTIC, PARIS, MALE])
    guess = np.array([BERLIN, WINDHOEK, PARIS, ATLANTIC, PARIS])
    regions = look_up_regions(truth, guess)
    assert regions["country"].tolist() == ["FR", "NA", "", "FR", "MV"]
    assert regions["predicted_country"].tolist() == ["DE", "NA", "FR", "", "FR"]
    assert regions["continent"].tolist() == ["Europe", "Africa", "", "Europe", "Seven seas (open ocean)"]
    assert regions["predicted_continent"].tolist() == ["Europe", "Africa", "Europe", "", "Europe"]


def test_a_truth_at_sea_does_not_count_and_a_guess_at_sea_is_wrong() -> None:
    truth = np.array(["FR", "FR", "", "", "DE"])
    guess = np.array(["FR", "", "", "FR", "DE"])
    found = region_accuracy(truth, guess)
    assert found is not None and found["n"] == 3
    assert found["percent"]["value"] == pytest.approx(200 / 3)
    assert region_accuracy(truth[2:4], guess[2:4]) is None


def test_groups_are_measured_as_if_alone() -> None:
    rng = np.random.default_rng(0)
    error_km = rng.exponential(300, 600)
    group = np.array(["Asia", "Europe", ""])[rng.integers(0, 3, 600)]
    groups = by_group(error_km, group, seed=4)
    assert set(groups) == {"Asia", "Europe"}
    for name, accuracy in groups.items():
        assert accuracy == summarise(error_km[group == name], seed=4)


def test_training_bins_include_their_lower_end() -> None:
    km = np.array([0, 0.999, 1, 24.9, 25, 199, 200, 749, 750, 9000])
    assert training_bins(km).tolist() == [name for name in TRAINING_BINS for _ in range(2)]
