"""Guarantees of what an evaluation reports: number of resamples, both sides of McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest

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
