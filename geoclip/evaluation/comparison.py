"""Compare two evaluations on the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoclip.errors import DataError
from geoclip.evaluation.metrics import THRESHOLDS_KM, Floats, geoscore, within
from geoclip.evaluation.significance import LEVEL, bootstrap, interval_of, mcnemar, weighted_medians

MUST_AGREE = {"gallery_sha256": None, "protocol": "sphere", "tta": "single", "n": None}  # with defaults for older files
COLUMNS = ("key", "lat", "lon", "distance_km")
REGIONS = ("country", "predicted_country")


@dataclass(kw_only=True, slots=True)
class Images:
    """One run on one benchmark: one row per image."""

    run: str
    keys: list[str]
    truth_deg_N2: Floats
    error_km_N: Floats
    ceiling_km_N: Floats  # to the nearest location of the gallery; NaN if the file lacks it
    country_right_N: Floats | None  # 1, 0, or NaN for a truth in no country; None if the file lacks it
    setting: dict[str, Any]


def read_images(run: Path, benchmark: str) -> Images:
    """Read eval/<benchmark>.json and .csv of a run.

    Raises:
        DataError: one of them is missing or corrupt, or names an image twice.
    """
    path = run / "eval" / f"{benchmark}.csv"
    again = f"evaluate again: python -m geoclip.evaluate checkpoint={run} benchmark={benchmark}"
    try:
        result = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        # NA is Namibia: only an empty cell is a missing value.
        table = pd.read_csv(path, dtype={"key": str}, keep_default_na=False, na_values={"distance_km": [""]})
    except (OSError, ValueError) as error:
        raise DataError(f"{path} and its .json cannot be read ({error}); {again}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; {again}")
    if len(twice := table["key"][table["key"].duplicated()]):
        raise DataError(f"{path} contains the image {twice.iloc[0]} twice; {again}")
    right_N: Floats | None = None
    if set(REGIONS) <= set(table):
        country, predicted = (table[name].to_numpy(dtype=object) for name in REGIONS)
        right_N = np.where(country == "", np.nan, (country == predicted).astype(np.float64))
    return Images(
        run=run.resolve().name,
        keys=table["key"].tolist(),
        truth_deg_N2=table[["lat", "lon"]].to_numpy(np.float64),
        error_km_N=table["distance_km"].to_numpy(np.float64),
        ceiling_km_N=table.reindex(columns=["ceiling_km"])["ceiling_km"].to_numpy(np.float64),
        country_right_N=right_N,
        setting={key: result.get(key, default) for key, default in MUST_AGREE.items()},
    )


def paired(a: Images, b: Images, *, force: bool = False) -> tuple[Images, Images]:
    """Both runs with the same images, in the order of `a`.

    Args:
        a: one run.
        b: another.
        force: compare the images that both have, whatever else differs.

    Raises:
        DataError: other images, locations, gallery or protocol.
    """
    row_of_a, row_of_b = ({key: row for row, key in enumerate(one.keys)} for one in (a, b))
    shared = [key for key in a.keys if key in row_of_b]
    lonely = [[key for key in one if key not in other] for one, other in ((row_of_a, row_of_b), (row_of_b, row_of_a))]
    if (any(lonely) and not force) or not shared:
        counts = "; ".join(
            f"{len(keys)} only in {one.run}{_some(keys)}" for one, keys in zip((a, b), lonely, strict=True)
        )
        raise DataError(
            f"these runs were evaluated on different images: {counts}; evaluate both on the same, or compare the "
            f"{len(shared)} common ones with force=true"
        )
    differing = [
        f"{key} {a.setting[key]} and {b.setting[key]}" for key in MUST_AGREE if a.setting[key] != b.setting[key]
    ]
    if differing and not force:
        raise DataError(
            f"{a.run} and {b.run} were measured differently: {'; '.join(differing)}; evaluate one of them again with "
            "the settings of the other, or compare them anyway with force=true"
        )
    one, other = _take(a, [row_of_a[key] for key in shared]), _take(b, [row_of_b[key] for key in shared])
    moved = np.flatnonzero(np.abs(one.truth_deg_N2 - other.truth_deg_N2).max(axis=1) > 1e-6)
    if len(moved):
        raise DataError(
            f"{len(moved)} images have other true locations in {a.run} than in {b.run}, first {shared[moved[0]]}: "
            "these are different benchmarks of one name"
        )
    return one, other


def _take(images: Images, rows: Sequence[int]) -> Images:
    right_N = images.country_right_N
    return replace(
        images,
        keys=[images.keys[row] for row in rows],
        truth_deg_N2=images.truth_deg_N2[rows],
        error_km_N=images.error_km_N[rows],
        ceiling_km_N=images.ceiling_km_N[rows],
        country_right_N=None if right_N is None else right_N[rows],
    )


def _some(keys: Sequence[str]) -> str:
    return f" ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})" if keys else ""


@dataclass(kw_only=True, slots=True, frozen=True)
class Difference:
    """One measure of two runs, and the bootstrap of the difference b − a."""

    a: float
    b: float
    value: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, of the bootstrap
    n: int  # images
    only_a: int | None = None  # of a share: images that only a has right
    only_b: int | None = None
    p_sign: float | None = None  # of a share: McNemar's exact test
    excludes_zero: bool = False  # the interval; of a share also p_sign < 0.05


def compare_images(a: Images, b: Images, *, seed: int = 0) -> dict[str, Difference]:
    """The differences b − a by name (distances in km, country, median_km, geoscore) of two paired runs.

    The 95 % intervals are of a paired bootstrap: images are drawn, each with both its errors. `p` is twice the smaller
    share of resamples on either side of zero, where zero itself counts on both. If a share differs in a few images
    only, resampling is overconfident: McNemar's exact test must agree before zero counts as excluded. The variation
    over training seeds is not included.

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
        with np.errstate(invalid="ignore"):  # a resample may have no image in a country
            means_RM = (count_RN @ gain_NM) / (count_RN @ counts_NM)
        medians_R = weighted_medians(b_km_N, count_RN) - weighted_medians(a_km_N, count_RN)
        return np.column_stack((means_RM, medians_R))

    draw_RM = bootstrap(measure, len(a_km_N), seed)
    return draw_RM[:, :-1], draw_RM[:, -1]


def _difference(a: float, b: float, resampled_R: Floats, n: int, share: tuple[Floats, Floats] | None) -> Difference:
    resampled_R = resampled_R[~np.isnan(resampled_R)]
    interval = interval_of(b - a, resampled_R)
    beyond = 1 + min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    only_a, only_b, p_sign = (None, None, None) if share is None else mcnemar(*share)
    return Difference(
        **{"a": a, "b": b} | asdict(interval),
        p=min(1.0, 2 * beyond / (len(resampled_R) + 1)),
        n=n,
        only_a=only_a,
        only_b=only_b,
        p_sign=p_sign,
        excludes_zero=(interval.low > 0 or interval.high < 0) and (p_sign is None or p_sign < LEVEL),
    )
