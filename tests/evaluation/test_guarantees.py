"""Guarantees of what an evaluation reports: its ceiling, the number of resamples, both sides of McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoclip.evaluation.benchmark import evaluate_benchmark
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.retrieval import Queries
from geoclip.evaluation.significance import bootstrap, mcnemar


def test_there_are_two_thousand_resamples_of_as_many_images() -> None:
    count_RN = bootstrap(lambda count_RN: count_RN, 7)
    assert count_RN.shape == (2000, 7) and (count_RN.sum(axis=1) == 7).all()
    assert len({tuple(row) for row in count_RN}) > 500


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(5, 1, 14 / 64), (1, 5, 14 / 64), (0, 6, 2 / 64), (3, 3, 1.0)])
def test_mcnemars_test_is_exact_and_two_sided(only_a: int, only_b: int, p: float) -> None:
    """p = 2 · P(at most the smaller of 6 differing images by chance); NaN and equal images do not count."""
    a = np.array([1.0] * only_a + [0.0] * only_b + [1.0, 0.0, np.nan])
    b = np.array([0.0] * only_a + [1.0] * only_b + [1.0, 0.0, 1.0])
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(p)


@pytest.mark.parametrize("scale", [None, 10.0])
def test_the_ceiling_is_of_the_gallery_and_the_accuracy_of_the_model(scale: float | None) -> None:
    """Each image is most similar to the other one's location; 0.1° is 11.1 km, and 60° are 6671.7 km."""
    gallery = Gallery(name="two", gps_deg_G2=torch.tensor([[0.0, 0.0], [0.0, 60.0]], dtype=torch.float64))
    truth_deg_N2 = torch.tensor([[0.0, 0.1], [0.0, 60.0]], dtype=torch.float64)
    queries = Queries(image_ND=torch.eye(2).flip(0), gps_deg_N2=truth_deg_N2, keys=["a", "b"])
    result, predictions = evaluate_benchmark("two", queries, gallery, torch.eye(2), scale=scale)
    assert result.ceiling_percent == {1: 50, 25: 100, 200: 100, 750: 100, 2500: 100}
    assert {km: share.value for km, share in result.accuracy.percent.items()} == dict.fromkeys(
        result.ceiling_percent, 0
    )
    assert result.verbatim_in_gallery == 1
    assert predictions.ceiling_km_N.tolist() == pytest.approx([11.12, 0], abs=0.01)
    assert predictions.distance_km_N.tolist() == pytest.approx([6660.58, 6671.70], abs=0.01)
    assert predictions.guess_deg_N2.tolist() == [[0, 60], [0, 0]]
