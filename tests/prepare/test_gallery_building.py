"""Filters of a gallery, against brute force and for any order of the coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from geoclip.errors import DataError
from geoclip.evaluation.metrics import nearest_location_km, verbatim_count
from geoclip.geo.geodesy import haversine_km, in_box
from geoclip.prepare.galleries import FIRST_BLOCK, GalleryRules, Locations, build_locations, distinct, is_near, thinned

NO_TEST_SET = np.empty((0, 2))


def crowded_places(count: int, seed: int = 0) -> Locations:
    """Towns of photographers, one at the pole, one on the antimeridian, in random order; as many digits as Flickr's."""
    rng = np.random.default_rng(seed)
    towns = np.array([[48.85, 2.35], [89.95, 10.0], [-17.0, 180.0], [0.0, 0.0], *rng.uniform(-80, 80, (20, 2))])
    places = towns[rng.integers(0, len(towns), count)] + rng.normal(0, 0.2, (count, 2))
    lon = (places[:, 1] + 180) % 360 - 180
    return np.stack((places[:, 0].clip(-90, 90), lon), axis=1).round(6)


def build(places: Locations, excluded: Locations = NO_TEST_SET, **rules: Any) -> Locations:
    return build_locations(places, GalleryRules(**rules), excluded)[0]


@pytest.fixture(scope="module")
def three_blocks() -> Locations:
    return crowded_places(3 * FIRST_BLOCK + 77)  # 1, 2 and a part of the 4 that would come next


@pytest.fixture(scope="module")
def distance_km_NN(three_blocks: Locations) -> Locations:
    degrees = torch.from_numpy(three_blocks)
    return torch.stack([haversine_km(degrees, row[None]) for row in degrees]).numpy()


@pytest.mark.parametrize("radius_km", [0.5, 20, 3000])
def test_a_location_is_dropped_if_an_earlier_kept_one_is_near(
    three_blocks: Locations, distance_km_NN: Locations, radius_km: float
) -> None:
    kept: list[int] = []
    for row, distance_km_N in enumerate(distance_km_NN):
        if not (distance_km_N[kept] <= radius_km).any():
            kept.append(row)
    assert thinned(three_blocks, radius_km).tolist() == kept
    assert 0 < len(kept) < len(three_blocks)


def test_thinning_needs_no_distances_of_all_pairs() -> None:
    """A hundred thousand locations have five thousand million pairs."""
    crowd = np.random.default_rng(0).normal((48.8584, 2.2945), 0.001, (100_000, 2))
    assert thinned(crowd, 25).tolist() == [0]


def test_neither_order_nor_repetition_changes_a_gallery() -> None:
    places = crowded_places(2000)
    rng = np.random.default_rng(1)
    again = np.concatenate((places, places[::3]))[rng.permutation(2000 + 667)]
    several: list[dict[str, Any]] = [{}, {"radius_km": 2.0}, {"size": 300, "radius_km": 0.1}]
    for rules in several:
        assert np.array_equal(build(places, **rules), build(again, **rules))


def test_a_smaller_gallery_begins_a_larger_one_and_another_seed_gives_another() -> None:
    places = crowded_places(3000)
    small, large = (build(places, size=size, radius_km=1.0, seed=4) for size in (50, 400))
    assert np.array_equal(large[:50], small)
    assert not np.array_equal(build(places, size=50, radius_km=1.0, seed=5), small)
    assert abs(np.corrcoef(large[:-1, 0], large[1:, 0])[0, 1]) < 0.15


def test_a_place_counts_once_and_minus_zero_is_zero() -> None:
    places = np.array([[0.0, 7.0], [-0.0, 7.0], [1.0, -0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1e-9]])
    assert distinct(places).tolist() == [[0, 7], [1, 0], [1, 1e-9]]


BOXES = {
    "around Fiji": ((-20.0, 170.0, -10.0, -175.0), [True, True, True, False, False]),
    "east of it": ((-20.0, -180.0, -10.0, -175.0), [False, True, True, False, False]),
    "the Earth": ((-90.0, -180.0, 90.0, 180.0), [True] * 5),
    "its southern edge": ((-17.0, -180.0, -17.0, 180.0), [True, True, True, False, False]),
    "elsewhere": ((40.0, 0.0, 50.0, 10.0), [False, False, False, False, True]),
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_have_edges_and_cross_the_antimeridian(name: str) -> None:
    box_deg, inside = BOXES[name]
    places = np.array([[-17.0, 178.0], [-17.0, 180.0], [-17.0, -179.0], [-9.9, 178.0], [48.8, 2.3]])
    assert in_box(places, box_deg).tolist() == inside
    assert in_box(np.array([[-17.0, -180.0]]), box_deg).tolist() == [inside[1]]


def test_exact_coordinates_of_a_test_set_are_excluded_and_close_ones_kept() -> None:
    places, test = crowded_places(500), crowded_places(80, seed=9)
    leaking = np.concatenate((places, test[:30], test[:30] + np.array([1e-6, 0])))
    gallery = build(leaking, test)
    assert verbatim_count(test, leaking) == 30 and verbatim_count(test, gallery) == 0
    assert len(gallery) == len(distinct(leaking)) - 30


def test_with_a_radius_all_locations_near_a_test_set_are_excluded() -> None:
    places, test = crowded_places(2000), crowded_places(40, seed=9)
    gallery = build(places, test, exclude_radius_km=5)
    far = nearest_location_km(distinct(places), test) > 5
    assert len(gallery) == far.sum() < 2000
    assert nearest_location_km(gallery, test).min() > 5
    assert is_near(test, test, 1e-6).all()


def test_filters_apply_in_order_and_are_counted() -> None:
    places = np.array([[48.85, 2.35], [48.85, 2.35], [48.86, 2.35], [48.85, 2.36], [52.5, 13.4], [43.3, 5.4]])
    test = np.array([[48.85, 2.36]])
    rules = GalleryRules(box_deg=(45, 0, 60, 20), countries=("FR",), radius_km=10, size=1)
    gallery, counts = build_locations(places, rules, test)
    assert counts == {
        "read": 6, "distinct": 5, "in box": 4, "in country": 3, "not excluded": 2, "apart": 1, "drawn": 1,
    }  # fmt: skip
    assert gallery.tolist() in ([[48.85, 2.35]], [[48.86, 2.35]])
    assert build_locations(places, GalleryRules(), NO_TEST_SET)[1] == {"read": 6, "distinct": 5}


def test_too_few_locations_are_an_error() -> None:
    places = crowded_places(100)
    with pytest.raises(DataError, match=r"size=101 .* 100 .*read: 100, distinct: 100"):
        build(places, size=101)
    with pytest.raises(DataError, match=r"distinct: 100, in box: 0"):
        build(places, box_deg=(-90, 0, -89, 1))
    with pytest.raises(DataError, match=r"not excluded: 0"):
        build(places, places)
