"""Statistical significance: the bootstrap, its 95 % intervals, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

RESAMPLES = 2_000
LEVEL = 0.05
BOUNDS_PERCENT = (2.5, 97.5)
COUNTS_AT_ONCE = 1_000_000  # resamples times images: 8 MB

Floats = NDArray[np.float64]


@dataclass(kw_only=True, slots=True, frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(value=math.nan, low=math.nan, high=math.nan)


class McNemar(NamedTuple):
    """How many images only one side has right, and the two-sided p of the exact test."""

    only_a: int
    only_b: int
    p: float


def bootstrap(statistic: Callable[[Floats], Floats], n: int, seed: int = 0, *, exponential: bool = False) -> Floats:
    """(RESAMPLES, …) values of a statistic when n images are drawn with replacement.

    The same n and seed give the same draws, so resamples of two runs on the same images are paired.

    Args:
        statistic: from (R, n) weights, the number of draws of each image, to (R, …) values.
        n: images, or clusters of them.
        seed: of the draws.
        exponential: exponentially distributed weights instead of counts, so that no image has weight 0.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; exponential weights: Rubin, "The
    Bayesian Bootstrap", Annals of Statistics 9(1), 1981.
    """
    rng, found = np.random.default_rng(seed), []
    at_once = max(1, COUNTS_AT_ONCE // n)
    for first in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - first)
        if exponential:
            weight_RN = rng.standard_exponential((size, n))
        else:
            drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
            counts = np.bincount(drawn.reshape(-1), minlength=size * n)
            weight_RN = counts.reshape(size, n).astype(np.float64)
        found.append(statistic(weight_RN))
    return np.concatenate(found)


def interval_of(value: float, resampled_R: Floats) -> Interval:
    """A value with the 95 % interval of its resamples."""
    low, high = map(float, np.percentile(resampled_R, BOUNDS_PERCENT))
    return Interval(value=value, low=low, high=high)


def weighted_medians(value_N: Floats, count_RN: Floats) -> Floats:
    """(R,) medians where value i was drawn count_RN[:, i] times, N draws in all."""
    order, n = np.argsort(value_N), len(value_N)
    below_RN = np.cumsum(count_RN[:, order], axis=1)
    low_R = (below_RN > (n - 1) // 2).argmax(axis=1)
    high_R = low_R if n % 2 else (below_RN > n // 2).argmax(axis=1)
    medians_R: Floats = (value_N[order[low_R]] + value_N[order[high_R]]) / 2
    return medians_R


def mean_interval(value_N: Floats, seed: int = 0) -> Interval:
    """The mean and its bootstrap interval; NaN if there is no value."""
    n = len(value_N)
    if not n:
        return UNKNOWN
    return interval_of(float(value_N.mean()), bootstrap(lambda count_RN: count_RN @ value_N / n, n, seed))


def share_interval(true_N: NDArray[np.bool_]) -> Interval:
    """The share that is true and its interval, in percent; NaN if there is no value.

    The number of true ones in a resample is binomial, so the bootstrap's percentiles are known without drawing.
    For 0 and 100 % the interval is Wilson's.
    """
    n = len(true_N)
    if not n:
        return UNKNOWN
    share = float(true_N.mean())
    if share in (0, 1):
        return all_or_none(share == 1, n)
    low, high = (100 * float(binom.ppf(bound / 100, n, share)) / n for bound in BOUNDS_PERCENT)
    return Interval(value=100 * share, low=low, high=high)


def all_or_none(is_all: bool, n: int) -> Interval:
    """100 or 0 % of n, with Wilson's interval, because all resamples of equal values are equal.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    found = binomtest(n if is_all else 0, n).proportion_ci(method="wilson")
    low, high = (100.0 * float(np.clip(bound, 0, 1)) for bound in (found.low, found.high))
    return Interval(value=100.0, low=low, high=100.0) if is_all else Interval(value=0.0, low=0.0, high=high)


def mcnemar(a_right_N: NDArray[Any], b_right_N: NDArray[Any]) -> McNemar:
    """McNemar's exact test of two sides on the same images: right (1), wrong (0) or not counted (NaN).

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947.
    """
    only_a, only_b = int((a_right_N > b_right_N).sum()), int((b_right_N > a_right_N).sum())
    differing = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_b, differing).pvalue) if differing else 1.0)
