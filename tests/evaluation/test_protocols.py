"""The protocols: released agrees with the released code, and differs from the sphere where it must."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from geoclip.data.assets import asset_path
from geoclip.evaluation.metrics import (
    LEAST_RATIO,
    MOST_RATIO,
    THRESHOLDS_KM,
    distance_km,
    nearest_location,
    percent_within,
    summarise,
    within,
)

Floats = NDArray[np.float64]


def random_locations(count: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return np.stack((lat, rng.uniform(-180, 180, count)), axis=1)


@pytest.fixture(scope="module")
def released_eval() -> ModuleType:
    """train/eval.py of the authors' package, alone."""
    path = Path(asset_path("released_code")) / "train" / "eval.py"
    spec = importlib.util.spec_from_file_location("released_eval", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_released_agrees_with_the_released_code(released_eval: ModuleType) -> None:
    rng = np.random.default_rng(0)
    gallery = random_locations(300, 1)
    guess = rng.integers(0, 300, 200)
    far = np.geomspace(0.003, 60, 200)[:, None] * rng.normal(size=(200, 2)) / 2
    truth = (gallery[guess] + far).clip((-90, -180), (90, 180))
    error_km = distance_km(gallery[guess], truth, "released")
    accuracy = summarise(error_km, protocol="released")
    for km in THRESHOLDS_KM:
        share, mean_km = released_eval.distance_accuracy(truth, guess, km, gallery)
        assert accuracy.percent[km].value == pytest.approx(100 * share, abs=1e-9)
        assert 0 < share < 1
    assert accuracy.mean_km == pytest.approx(mean_km, rel=1e-12)


@pytest.mark.parametrize(
    ("azimuth", "lat", "sphere_is_longer"), [("north", 0.0, True), ("east", 0.0, False), ("north", 75.0, False)]
)
@pytest.mark.parametrize("km", THRESHOLDS_KM[:4])
def test_locations_between_the_two_distances_count_in_one_protocol(
    released_eval: ModuleType, azimuth: str, lat: float, sphere_is_longer: bool, km: int
) -> None:
    """A degree north at the equator is 110.57 km on the ellipsoid, 111.19 on the sphere; east 111.32."""
    here = np.array([[lat, 10.0]])
    step = np.array([[1.0, 0.0]]) if azimuth == "north" else np.array([[0.0, 1.0]])
    per_degree = [
        distance_km(here, here + step * km / 111, protocol)[0] / (km / 111) for protocol in ("sphere", "released")
    ]
    there = here + step * km / np.mean(per_degree)  # halfway: beyond the distance in one, within it in the other
    sphere, released = (distance_km(here, there, protocol) for protocol in ("sphere", "released"))
    assert (sphere[0] > km > released[0]) if sphere_is_longer else (sphere[0] < km < released[0])
    assert percent_within(sphere, "sphere")[km] == (0 if sphere_is_longer else 100)
    assert percent_within(released, "released")[km] == (100 if sphere_is_longer else 0)
    assert released_eval.distance_accuracy(there, [0], km, here)[0] == (1 if sphere_is_longer else 0)


def test_an_error_of_exactly_the_distance_counts_in_released_only() -> None:
    error_km = np.array([25.0, 200.0, 1.0, 3000.0])
    assert percent_within(error_km, "released") == {1: 25, 25: 50, 200: 75, 750: 75, 2500: 75}
    assert percent_within(error_km, "sphere") == {1: 0, 25: 25, 200: 50, 750: 75, 2500: 75}
    for protocol in ("sphere", "released"):
        accuracy = summarise(error_km, protocol=protocol)
        shares = {km: interval.value for km, interval in accuracy.percent.items()}
        assert shares == percent_within(error_km, protocol)
    always = summarise(np.full(50, 25.0), protocol="released").percent[25]
    assert always.value == 100 and always.high == 100  # a miss among them would end below


def test_the_nearest_location_is_the_best_of_all_distances() -> None:
    rng = np.random.default_rng(3)
    test, gallery = random_locations(60, 0), random_locations(400, 1)
    # Locations at nearly equal distances, where the ellipsoid decides.
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack((10 + 5 * np.cos(turn), 20 + 5 * np.sin(turn) / np.cos(np.radians(10))), axis=1)
    gallery = np.concatenate((gallery, ring, ring[:3], rng.permutation(gallery)[:50]))
    test = np.concatenate((test, [[10.0, 20.0]], gallery[5:8]))
    one, other = np.repeat(test, len(gallery), axis=0), np.tile(gallery, (len(test), 1))
    for protocol in ("sphere", "released"):
        all_km = distance_km(one, other, protocol).reshape(len(test), -1)
        row, km = nearest_location(test, gallery, protocol)
        assert km == pytest.approx(all_km.min(axis=1), abs=1e-6)
        assert distance_km(test, gallery[row], protocol) == pytest.approx(km, abs=1e-6)
    rows = [nearest_location(np.array([[10.0, 20.0]]), ring, protocol)[0][0] for protocol in ("sphere", "released")]
    assert rows[0] != rows[1]


def test_geodesics_stay_within_the_radii_of_curvature() -> None:
    a, b = random_locations(20_000, 4), random_locations(20_000, 5)
    near = (a + np.random.default_rng(6).normal(0, 0.01, a.shape)).clip((-90, -180), (90, 180))
    for other in (b, near):
        ratio = distance_km(a, other, "released") / distance_km(a, other, "sphere")
        assert ratio.min() > LEAST_RATIO and ratio.max() < MOST_RATIO


def test_another_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol=flat"):
        within(np.zeros(1), 1, "flat")
