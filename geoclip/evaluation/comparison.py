"""Two runs on the same images: by how much one is better, and whether chance among the images could have done it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geoclip.evaluation.accuracy import THRESHOLDS_KM, Floats, geoscore
from geoclip.evaluation.paired_images import Images
from geoclip.evaluation.protocols import within

RESAMPLES = 10_000
COUNTS_AT_ONCE = 1_000_000  # of resamples times images: 8 MB
LEVEL = 0.05


@dataclass(kw_only=True, slots=True, frozen=True)
class Difference:
    """One measure of two runs, and what resampling the images makes of the difference b − a."""

    a: float
    b: float
    value: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, of the bootstrap
    n: int  # images that it is of
    only_a: int | None = None  # of a share: images that a alone has right
    only_b: int | None = None
    p_sign: float | None = None  # of a share: McNemar's exact test
    excludes_zero: bool = False  # the interval; of a share also p_sign < 0.05


def compare_images(
    a: Images, b: Images, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """The differences b − a and their 95 % intervals by paired bootstrap: images are drawn, each with both its errors.

    `p` is twice the smaller share of resamples on either side of zero, zero itself on both. A share can differ in so
    few images that resampling them is too sure; McNemar's exact test must agree before zero counts as excluded.
    Nothing is said of how the runs would come out with other seeds.

    Args:
        a: one run, paired.
        b: the other.
        seed: of the drawing.
        resamples: how many.

    Returns:
        By name: a distance in km, `country` in percent, `median_km`, `geoscore`.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16; McNemar, "Note on the
    sampling error of the difference between correlated proportions or percentages", Psychometrika 12, 1947.
    """
    protocol = a.setting["protocol"]
    pairs = {
        str(km): tuple(within(one.error_km_N, km, protocol).astype(np.float64) for one in (a, b))
        for km in THRESHOLDS_KM
    }
    if (
        a.country_right_N is not None
        and b.country_right_N is not None
        and not np.isnan(a.country_right_N).all()
    ):
        pairs["country"] = (a.country_right_N, b.country_right_N)
    shares = list(pairs)
    pairs["geoscore"] = (geoscore(a.error_km_N), geoscore(b.error_km_N))
    means_RM, medians_R = _resample(pairs, a.error_km_N, b.error_km_N, seed, resamples)
    found = {}
    for number, (name, (one, other)) in enumerate(pairs.items()):
        unit = 100 if name in shares else 1
        found[name] = _difference(
            unit * float(np.nanmean(one)), unit * float(np.nanmean(other)), unit * means_RM[:, number],
            int((~np.isnan(one)).sum()), (one, other) if name in shares else None,
        )  # fmt: skip
    medians = (float(np.median(a.error_km_N)), float(np.median(b.error_km_N)))
    found["median_km"] = _difference(*medians, medians_R, len(a.keys), None)
    return found


def _resample(
    pairs: dict[str, tuple[Floats, ...]], a_km_N: Floats, b_km_N: Floats, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Differences of the means (R, M), NaN values left out, and of the medians (R,) of R resamples."""
    rng, n = np.random.default_rng(seed), len(a_km_N)
    gain_NM = np.stack([np.nan_to_num(other) - np.nan_to_num(one) for one, other in pairs.values()], axis=1)
    counts_NM = np.stack([~np.isnan(one) for one, _ in pairs.values()], axis=1).astype(np.float64)
    means_RM, medians_R = np.empty((resamples, len(pairs))), np.empty(resamples)
    at_once = max(1, COUNTS_AT_ONCE // n)
    for first in range(0, resamples, at_once):
        size = min(at_once, resamples - first)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        drawn_RN = np.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n)
        rows, weight_RN = slice(first, first + size), drawn_RN.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of few images in a country none may be drawn
            means_RM[rows] = (weight_RN @ gain_NM) / (weight_RN @ counts_NM)
        medians_R[rows] = weighted_medians(b_km_N, drawn_RN) - weighted_medians(a_km_N, drawn_RN)
    return means_RM, medians_R


def weighted_medians(error_km_N: Floats, drawn_RN: NDArray[np.int64]) -> Floats:
    """(R,) medians where image i was drawn drawn_RN[:, i] times."""
    order, n = np.argsort(error_km_N), len(error_km_N)
    below_RN = np.cumsum(drawn_RN[:, order], axis=1)
    low_R = (below_RN > (n - 1) // 2).argmax(axis=1)
    high_R = low_R if n % 2 else (below_RN > n // 2).argmax(axis=1)
    medians_R: Floats = (error_km_N[order[low_R]] + error_km_N[order[high_R]]) / 2
    return medians_R


def _difference(
    a: float, b: float, resampled_R: Floats, n: int, share: tuple[Floats, Floats] | None
) -> Difference:
    resampled_R = resampled_R[~np.isnan(resampled_R)]
    low, high = (float(bound) for bound in np.percentile(resampled_R, (2.5, 97.5)))
    beyond = 1 + min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    only_a = only_b = p_sign = None
    if share is not None:
        only_a, only_b = int((share[0] > share[1]).sum()), int((share[1] > share[0]).sum())
        p_sign = float(stats.binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return Difference(
        a=a,
        b=b,
        value=b - a,
        low=low,
        high=high,
        p=min(1.0, 2 * beyond / (len(resampled_R) + 1)),
        n=n,
        only_a=only_a,
        only_b=only_b,
        p_sign=p_sign,
        excludes_zero=(low > 0 or high < 0) and (p_sign is None or p_sign < LEVEL),
    )
