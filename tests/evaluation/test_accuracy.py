"""Measures against geodesy libraries, other statistics code, and the published bound of the released gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from geoclip.data.assets import asset_path
from geoclip.data.tables import read_coordinates
from geoclip.evaluation.metrics import (
    GEOSCORE_KM,
    THRESHOLDS_KM,
    Floats,
    geoscore,
    nearest_location_km,
    percent_within,
    summarise,
    verbatim_count,
)


def locations_of(path: Path) -> Floats:
    return read_coordinates(path, "benchmark")[["lat", "lon"]].to_numpy(np.float64)


@pytest.fixture(scope="module")
def released_gallery() -> Floats:
    return locations_of(asset_path("gallery_100k.csv"))


@pytest.mark.parametrize(
    ("file", "percent", "median_km", "verbatim"),
    [
        ("im2gps3k.csv", (63.5, 95.2, 99.8, 100, 100), 0.46, 7),
        ("yfcc4k.csv", (62.4, 97.0, 99.9, 99.98, 100), 0.39, 424),
    ],
)
def test_the_released_gallery_bounds_every_result(
    repository: Path, released_gallery: Floats, file: str, percent: tuple[float, ...], median_km: float, verbatim: int
) -> None:
    truth = repository.parent / "shared" / "benchmarks" / file
    if not truth.is_file():
        pytest.skip(f"the ground truth {file} is not beside this checkout")
    locations = locations_of(truth)
    nearest_km = nearest_location_km(locations, released_gallery)
    for km, expected in zip(THRESHOLDS_KM, percent, strict=True):
        digits = 2 if expected == 99.98 else 1
        assert round(percent_within(nearest_km)[km], digits) == expected
    assert round(float(np.median(nearest_km)), 2) == median_km
    assert verbatim_count(locations, released_gallery) == verbatim


def test_geoscore_is_5000_without_error_and_falls_by_e_over_its_decay_length() -> None:
    score = geoscore(np.array([0.0, GEOSCORE_KM, 20_015.0]))
    assert score == pytest.approx([5000, 5000 / np.e, 5000 * np.exp(-20_015 / 1492.7)])


def test_the_summary_of_known_errors() -> None:
    error_km = np.array([0.5, 10.0, 100.0, 500.0, 2000.0, 10_000.0])
    accuracy = summarise(error_km)
    values = [interval.value for interval in accuracy.percent.values()]
    assert values == pytest.approx([100 / 6, 200 / 6, 300 / 6, 400 / 6, 500 / 6])
    assert accuracy.n == 6
    assert accuracy.median_km.value == 300.0
    assert accuracy.mean_km == pytest.approx(12_610.5 / 6)
    assert accuracy.geoscore.value == pytest.approx(geoscore(error_km).mean())


@pytest.mark.parametrize("count", [300, 301])  # the median of an even number is the mean of two
def test_intervals_agree_with_scipys_bootstrap(count: int) -> None:
    error_km = np.random.default_rng(1).exponential(600, count)
    accuracy = summarise(error_km, seed=2)

    def scipys(statistic: object, data: Floats) -> tuple[float, float]:
        found = bootstrap((data,), statistic, n_resamples=4000, method="percentile", rng=3, batch=500)
        return found.confidence_interval.low, found.confidence_interval.high

    inside = {km: interval for km, interval in accuracy.percent.items() if 0 < interval.value < 100}
    assert len(inside) == 4, "within 1 km the share is 0, and the interval Wilson's"
    for km, interval in inside.items():
        low, high = scipys(np.mean, np.where(error_km < km, 100.0, 0.0))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.7)
    median, score = accuracy.median_km, accuracy.geoscore
    assert (median.low, median.high) == pytest.approx(scipys(np.median, error_km), rel=0.03)
    assert (score.low, score.high) == pytest.approx(scipys(np.mean, geoscore(error_km)), rel=0.01)


def test_a_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    error_km = np.random.default_rng(0).exponential(600, 500)
    assert summarise(error_km, seed=5) == summarise(error_km, seed=5)
    assert summarise(error_km, seed=5).geoscore != summarise(error_km, seed=6).geoscore
    assert summarise(error_km, seed=5).percent[200].value == summarise(error_km, seed=6).percent[200].value


def test_fifty_perfect_guesses_do_not_make_a_perfect_model() -> None:
    accuracy = summarise(np.zeros(50))
    assert all(92 < i.low < 93 and (i.value, i.high) == (100, 100) for i in accuracy.percent.values())
    assert (accuracy.median_km.value, accuracy.mean_km, accuracy.geoscore.value) == (0, 0, 5000)


@pytest.mark.parametrize("errors", [[], [1.0, float("nan")], [float("inf")]])
def test_empty_and_infinite_errors_are_refused(errors: list[float]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        summarise(np.array(errors))


def test_verbatim_means_identical_coordinates_and_counts_every_test_location() -> None:
    gallery = np.array([[10.0, 20.0], [30.123456, 40.0], [30.123456, 40.0]])
    test = np.array([[10.0, 20.0], [10.0, 20.0], [30.1234561, 40.0], [20.0, 10.0], [30.123456, 40.0]])
    assert verbatim_count(test, gallery) == 3
