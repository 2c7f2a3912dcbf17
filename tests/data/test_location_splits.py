"""No two splits share a location, and training contains none of the unseen cells."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from geoclip.data.blue_marble import Degrees, cells_of, distinct_locations, split_locations
from geoclip.errors import DataError

SIZES = {"gallery": 1500, "val": 200, "test": 200, "unseen": 300}


def clustered_locations() -> Degrees:
    """6,000 locations, unevenly distributed as those of photographs: a few cells contain most of them."""
    rng = np.random.default_rng(0)
    towns = np.stack((rng.uniform(-55, 75, 150), rng.uniform(-180, 180, 150)), axis=1)
    owner = np.minimum(rng.zipf(1.5, 6000) - 1, 149)
    spread = towns[owner] + rng.normal(0, 2, (6000, 2))
    return np.stack((spread[:, 0], (spread[:, 1] + 180) % 360 - 180), axis=1)


def as_set(gps_deg_N2: Degrees) -> set[tuple[float, float]]:
    return {(float(lat), float(lon)) for lat, lon in gps_deg_N2}


@pytest.fixture(scope="module")
def splits() -> dict[str, Degrees]:
    return split_locations(clustered_locations(), **SIZES, seed=0)


def test_every_location_is_in_exactly_one_split(splits: dict[str, Degrees]) -> None:
    assert set(splits) == {"train", "val", "test", "test_unseen_cells", "gallery"}
    assert sum(map(len, splits.values())) == 6000
    assert set().union(*map(as_set, splits.values())) == as_set(clustered_locations())
    for one, other in combinations(splits.values(), 2):
        assert not as_set(one) & as_set(other)


def test_splits_have_the_sizes_asked_for(splits: dict[str, Degrees]) -> None:
    assert [len(splits[name]) for name in ("gallery", "val", "test")] == [1500, 200, 200]


@pytest.mark.parametrize("seed", range(10))
def test_a_crowded_cell_does_not_swell_the_unseen_split(seed: int) -> None:
    splits = split_locations(clustered_locations(), **SIZES, seed=seed)
    assert 300 <= len(splits["test_unseen_cells"]) <= 450


def test_sizes_that_the_locations_do_not_allow_are_an_error() -> None:
    one_town = np.random.default_rng(0).uniform(0, 5, (3000, 2))
    with pytest.raises(DataError, match=r" 0 .*300.*unseen_size"):
        split_locations(one_town, gallery=500, val=100, test=100, unseen=300, seed=0)
    with pytest.raises(DataError, match="6000"):
        split_locations(clustered_locations(), gallery=5500, val=200, test=200, unseen=200, seed=0)


def test_no_view_outside_of_the_gallery_is_centred_in_an_unseen_cell(splits: dict[str, Degrees]) -> None:
    unseen = set(cells_of(splits["test_unseen_cells"]))
    assert len(unseen) > 1
    for name in ("train", "val", "test"):
        assert not unseen & set(cells_of(splits[name]))
    assert unseen & set(cells_of(splits["gallery"])), "else nothing in these cells could be predicted"


def test_the_split_follows_from_the_seed(splits: dict[str, Degrees]) -> None:
    again = split_locations(clustered_locations(), **SIZES, seed=0)
    assert all((again[name] == splits[name]).all() for name in splits)
    other = split_locations(clustered_locations(), **SIZES, seed=1)
    assert as_set(other["test"]) != as_set(splits["test"])


def test_training_locations_are_in_random_order(splits: dict[str, Degrees]) -> None:
    lat = splits["train"][:, 0]
    assert abs(np.corrcoef(lat[:-1], lat[1:])[0, 1]) < 0.1


def test_cells_are_five_degrees_wide() -> None:
    corner, inside, east, north = cells_of(np.array([[0.0, 0.0], [4.99, 4.99], [0.0, 5.0], [5.0, 0.0]]))
    assert corner == inside
    assert len({corner, east, north}) == 3
    assert cells_of(np.array([[-0.01, 0.0]]))[0] != corner


def test_locations_equal_in_float32_are_one(tmp_path: Path) -> None:
    csv = tmp_path / "locations.csv"
    csv.write_text("LAT,LON\n10.5,100.0\n-3.25,7.0\n10.5,100.0\n10.5,100.0000001\n10.5,100.001\n")
    assert distinct_locations(csv).tolist() == [[10.5, 100.0], [-3.25, 7.0], [10.5, 100.001]]
