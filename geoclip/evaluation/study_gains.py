"""By how much a variant is better than the baseline, and whether chance could have done it: of images and of seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geoclip.evaluation.accuracy import THRESHOLDS_KM, Floats, geoscore, percent_within, resampled_measures
from geoclip.evaluation.protocols import within
from geoclip.evaluation.significance import BOUNDS_PERCENT, LEVEL, mcnemar

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


@dataclass(kw_only=True, slots=True, frozen=True)
class Resampled:
    """One run: its errors, its metrics in the order of METRICS, and their bootstrap values."""

    error_km_N: Floats
    value_M: Floats
    draw_RM: Floats


def measures(error_km_N: Floats, protocol: str) -> dict[str, float]:
    """One run's metrics: shares within the distances in percent, median in km, GeoScore."""
    shares = {str(km): share for km, share in percent_within(error_km_N, protocol).items()}
    return shares | {"median_km": float(np.median(error_km_N)), "geoscore": float(geoscore(error_km_N).mean())}


def resampled(error_km_N: Floats, protocol: str, seed: int = 0) -> Resampled:
    """A run's metrics and their bootstrap values."""
    return Resampled(
        error_km_N=error_km_N,
        value_M=np.array(list(measures(error_km_N, protocol).values())),
        draw_RM=resampled_measures(error_km_N, protocol, seed),
    )


def gains(
    base: Mapping[int, Resampled], variant: Mapping[int, Resampled], protocol: str, seed: int = 0
) -> dict[str, Gain]:
    """What a variant has over the baseline, metric by metric, over the seeds that both have.

    Images are drawn, each with its errors under both variants and all seeds. Every draw's mean over the S seeds is
    then moved by t · s / √S, with s the standard deviation of the seeds' own gains and t drawn from Student's
    distribution: the interval covers the variation of images and of seeds. Of one seed it covers the images' alone, and
    a share must pass McNemar's exact test as well, since few differing images make resampling too sure.

    Args:
        base: by seed of training, a run of the baseline.
        variant: the same images, in the same order, resampled with the same seed.
        protocol: whether an error of exactly a distance lies within it.
        seed: of Student's t.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13; Student, "The Probable
    Error of a Mean", Biometrika 6, 1908.
    """
    seeds = sorted(base.keys() & variant.keys())
    if not seeds:
        return {}
    before_SM, after_SM = (np.array([runs[s].value_M for s in seeds]) for runs in (base, variant))
    before_RM, after_RM = (np.mean([runs[s].draw_RM for s in seeds], axis=0) for runs in (base, variant))
    gain_SM = after_SM - before_SM
    gain_M = gain_SM.mean(axis=0)
    draw_RM = np.mean([variant[s].draw_RM - base[s].draw_RM for s in seeds], axis=0)
    low_M, high_M = _bounds(draw_RM, gain_SM, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_M = 100 * after_SM.mean(axis=0) / before_SM.mean(axis=0)
        share_bounds_2M = _bounds(100 * after_RM / before_RM, 100 * after_SM / before_SM, seed)
    shares = np.stack((share_M, *share_bounds_2M), axis=1)
    found = {}
    for number, metric in enumerate(METRICS):
        low, high = float(low_M[number]), float(high_M[number])
        sure = low > 0 or high < 0
        if sure and len(seeds) == 1 and metric.isdigit():
            right = (within(runs[seeds[0]].error_km_N, int(metric), protocol) for runs in (base, variant))
            sure = mcnemar(*right).p < LEVEL
        value, share_low, share_high = map(float, shares[number])
        found[metric] = Gain(
            value=float(gain_M[number]),
            low=low,
            high=high,
            excludes_zero=sure,
            share=(value, share_low, share_high) if np.isfinite(shares[number]).all() else None,
        )
    return found


def _bounds(draw_RM: Floats, per_seed_SM: Floats, seed: int) -> Floats:
    """(2, M) ends of the 95 % intervals: the draws of images, moved by the spread of several seeds."""
    seeds = len(per_seed_SM)
    if seeds > 1:
        t_R1 = np.random.default_rng(seed + 1).standard_t(seeds - 1, (len(draw_RM), 1))
        draw_RM = draw_RM + t_R1 * per_seed_SM.std(axis=0, ddof=1) / np.sqrt(seeds)
    bounds_2M: Floats = np.percentile(draw_RM, BOUNDS_PERCENT, axis=0)
    return bounds_2M
