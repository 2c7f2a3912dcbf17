"""By how much a variant is better than the baseline, and whether chance could have done it: of images and of seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from geoclip.evaluation.accuracy import THRESHOLDS_KM, Floats, geoscore
from geoclip.evaluation.comparison import LEVEL, weighted_medians
from geoclip.evaluation.protocols import within

DRAWS = 2_000
AT_ONCE = 250  # draws: of 15,000 images 30 MB
METRICS = (*map(str, THRESHOLDS_KM), "median_km", "geoscore")


@dataclass(kw_only=True, slots=True, frozen=True)
class Gain:
    """What a variant has over the baseline in one metric, and its 95 % interval."""

    value: float
    low: float
    high: float
    excludes_zero: bool
    share: tuple[float, float, float] | None = (
        None  # of the baseline's value, in percent, with its interval; None where that is 0
    )


def measures(error_km_N: Floats, protocol: str) -> dict[str, float]:
    """One run's metrics: shares within the distances in percent, median in km, GeoScore."""
    shares = {str(km): 100 * float(within(error_km_N, km, protocol).mean()) for km in THRESHOLDS_KM}
    return shares | {
        "median_km": float(np.median(error_km_N)),
        "geoscore": float(geoscore(error_km_N).mean()),
    }


class Bootstrap:
    """Draws of the images with replacement, the same for every run.

    Args:
        n: images.
        protocol: whether an error of exactly a distance lies within it.
        seed: of the drawing.
    """

    def __init__(self, n: int, protocol: str, seed: int = 0) -> None:
        self.n, self.protocol, self.seed = n, protocol, seed

    def of_run(self, error_km_N: Floats) -> Floats:
        """(DRAWS, metrics) of one run, in the order of METRICS."""
        value_NM = np.stack(
            [
                *(100.0 * within(error_km_N, km, self.protocol) for km in THRESHOLDS_KM),
                geoscore(error_km_N),
            ],
            axis=1,
        )
        rng, found = np.random.default_rng(self.seed), []
        for _ in range(0, DRAWS, AT_ONCE):
            drawn = rng.integers(0, self.n, (AT_ONCE, self.n)) + self.n * np.arange(AT_ONCE)[:, None]
            count_RN = np.bincount(drawn.reshape(-1), minlength=AT_ONCE * self.n).reshape(AT_ONCE, self.n)
            mean_RM = count_RN @ value_NM / self.n
            median_R = weighted_medians(error_km_N, count_RN)
            found.append(np.column_stack((mean_RM[:, :-1], median_R, mean_RM[:, -1])))
        return np.concatenate(found)


def gains(
    base: Mapping[int, Floats],
    variant: Mapping[int, Floats],
    bootstrap: Bootstrap,
    drawn: Mapping[int, tuple[Floats, Floats]] | None = None,
) -> dict[str, Gain]:
    """What a variant has over the baseline, metric by metric, over the seeds that both have.

    Images are drawn, each with its errors under both variants and all seeds. Every draw's mean over the S seeds is
    then moved by t · s / √S, with s the standard deviation of the seeds' own gains and t drawn from Student's
    distribution: the interval holds the images' chance and the seeds'. Of one seed it holds the images' alone, and a
    share must pass McNemar's exact test as well, since few differing images make resampling too sure.

    Args:
        base: by seed, (N,) errors in km.
        variant: the same images, in the same order.
        bootstrap: of these N images.
        drawn: by seed, what `bootstrap.of_run` gave of base and variant; None: it is asked.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13; Student, "The Probable
    Error of a Mean", Biometrika 6, 1908.
    """
    seeds = sorted(base.keys() & variant.keys())
    if not seeds:
        return {}
    drawn = drawn or {seed: (bootstrap.of_run(base[seed]), bootstrap.of_run(variant[seed])) for seed in seeds}
    gain_SM = np.array(
        [
            [
                after[metric] - before[metric]
                for before, after in [
                    (measures(base[seed], bootstrap.protocol), measures(variant[seed], bootstrap.protocol))
                ]
                for metric in METRICS
            ]
            for seed in seeds
        ]
    )
    draw_RM = np.mean([drawn[seed][1] - drawn[seed][0] for seed in seeds], axis=0)
    if len(seeds) > 1:
        rng = np.random.default_rng(bootstrap.seed + 1)
        t_R1 = rng.standard_t(len(seeds) - 1, (len(draw_RM), 1))
        draw_RM = draw_RM + t_R1 * gain_SM.std(axis=0, ddof=1) / np.sqrt(len(seeds))
    low_M, high_M = np.percentile(draw_RM, (2.5, 97.5), axis=0)
    shares = _shares(base, variant, bootstrap, {seed: drawn[seed] for seed in seeds})
    found = {}
    for number, metric in enumerate(METRICS):
        low, high = float(low_M[number]), float(high_M[number])
        sure = low > 0 or high < 0
        if sure and len(seeds) == 1 and metric.isdigit():
            sure = _mcnemar(base[seeds[0]], variant[seeds[0]], int(metric), bootstrap.protocol) < LEVEL
        found[metric] = Gain(
            value=float(gain_SM[:, number].mean()),
            low=low,
            high=high,
            excludes_zero=sure,
            share=shares[number],
        )
    return found


def _shares(
    base: Mapping[int, Floats],
    variant: Mapping[int, Floats],
    bootstrap: Bootstrap,
    drawn: Mapping[int, tuple[Floats, Floats]],
) -> list[tuple[float, float, float] | None]:
    """The variant's mean as a percentage of the baseline's, metric by metric; the interval as that of the gain."""
    protocol, seeds = bootstrap.protocol, list(drawn)
    before_SM, after_SM = (
        np.array([[measures(errors[seed], protocol)[metric] for metric in METRICS] for seed in seeds])
        for errors in (base, variant)
    )
    before_RM, after_RM = (np.mean([drawn[seed][side] for seed in seeds], axis=0) for side in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        draw_RM, share_SM = 100 * after_RM / before_RM, 100 * after_SM / before_SM
        value_M = 100 * after_SM.mean(axis=0) / before_SM.mean(axis=0)
    if len(seeds) > 1:
        t_R1 = np.random.default_rng(bootstrap.seed + 1).standard_t(len(seeds) - 1, (len(draw_RM), 1))
        draw_RM = draw_RM + t_R1 * share_SM.std(axis=0, ddof=1) / np.sqrt(len(seeds))
    bounds_2M = np.percentile(draw_RM, (2.5, 97.5), axis=0)
    return [
        (float(value), float(low), float(high)) if np.isfinite([value, low, high]).all() else None
        for value, low, high in zip(value_M, *bounds_2M, strict=True)
    ]


def _mcnemar(a_km_N: Floats, b_km_N: Floats, km: int, protocol: str) -> float:
    """Two-sided p that the images which one alone has right are as often the one's as the other's."""
    a_N, b_N = (within(errors, km, protocol) for errors in (a_km_N, b_km_N))
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    return float(stats.binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
