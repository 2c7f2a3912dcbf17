"""Two runs on the same images: by how much one is better, and whether chance among the images could have done it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoclip.evaluation.accuracy import THRESHOLDS_KM, Floats, geoscore
from geoclip.evaluation.paired_images import Images
from geoclip.evaluation.protocols import within
from geoclip.evaluation.significance import LEVEL, bootstrap, bounds_of, mcnemar, weighted_medians


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


def compare_images(a: Images, b: Images, *, seed: int = 0) -> dict[str, Difference]:
    """The differences b − a and their 95 % intervals by paired bootstrap: images are drawn, each with both its errors.

    `p` is twice the smaller share of resamples on either side of zero, zero itself on both. A share can differ in so
    few images that resampling them is too sure; McNemar's exact test must agree before zero counts as excluded.
    Nothing is said of how the runs would come out with other seeds.

    Args:
        a: one run, paired.
        b: the other.
        seed: of the drawing.

    Returns:
        By name: a distance in km, `country` in percent, `median_km`, `geoscore`.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16.
    """
    protocol = a.setting["protocol"]
    pairs = {
        str(km): tuple(within(one.error_km_N, km, protocol).astype(np.float64) for one in (a, b))
        for km in THRESHOLDS_KM
    }
    if a.country_right_N is not None and b.country_right_N is not None and not np.isnan(a.country_right_N).all():
        pairs["country"] = (a.country_right_N, b.country_right_N)
    shares = list(pairs)
    pairs["geoscore"] = (geoscore(a.error_km_N), geoscore(b.error_km_N))
    means_RM, medians_R = _resample(pairs, a.error_km_N, b.error_km_N, seed)
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


def _resample(pairs: dict[str, tuple[Floats, ...]], a_km_N: Floats, b_km_N: Floats, seed: int) -> tuple[Floats, Floats]:
    """Resampled differences of the means (R, M), NaN values left out, and of the medians (R,)."""
    gain_NM = np.stack([np.nan_to_num(other) - np.nan_to_num(one) for one, other in pairs.values()], axis=1)
    counts_NM = np.stack([~np.isnan(one) for one, _ in pairs.values()], axis=1).astype(np.float64)

    def measure(count_RN: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # of few images in a country none may be drawn
            means_RM = (count_RN @ gain_NM) / (count_RN @ counts_NM)
        medians_R = weighted_medians(b_km_N, count_RN) - weighted_medians(a_km_N, count_RN)
        return np.column_stack((means_RM, medians_R))

    draw_RM = bootstrap(measure, len(a_km_N), seed)
    return draw_RM[:, :-1], draw_RM[:, -1]


def _difference(a: float, b: float, resampled_R: Floats, n: int, share: tuple[Floats, Floats] | None) -> Difference:
    resampled_R = resampled_R[~np.isnan(resampled_R)]
    low, high = bounds_of(resampled_R)
    beyond = 1 + min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    only_a, only_b, p_sign = (None, None, None) if share is None else mcnemar(*share)
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
