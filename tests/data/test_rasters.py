"""Labels out of packaged maps: known places, and the library whose map it is."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import kstest

from geoclip.data import blue_marble
from geoclip.data.blue_marble import elevation_m, is_land, uniform_on_land
from geoclip.data.countries import continents_of
from geoclip.errors import GeoclipError

PLACES = {
    "Alps": (46.5, 9.5, True, (1500, 3500)),
    "Tibet": (33.0, 88.0, True, (4500, 5600)),
    "Netherlands": (52.1, 5.2, True, (-30, 60)),
    "South Pole": (-90.0, 0.0, True, None),
    "East Antarctica": (-80.0, 80.0, True, (3500, 4200)),
    "Taveuni, beyond the antimeridian": (-16.85, -179.97, True, None),
    "Atlantic": (30.0, -40.0, False, None),
    "off Fiji": (-20.0, 179.9, False, None),
    "North Pole": (90.0, 180.0, False, None),
    "Lake Superior": (47.7, -87.5, False, None),
}


@pytest.mark.parametrize("name", PLACES)
def test_known_places_lie_on_land_or_not_and_at_their_height(name: str) -> None:
    lat, lon, land, height_m = PLACES[name]
    assert is_land(np.array([[lat, lon]])).item() is land
    if height_m is not None:
        assert height_m[0] <= elevation_m(np.array([[lat, lon]])).item() <= height_m[1]


def test_elevation_is_what_pvlib_reads_from_its_own_map() -> None:
    location = pytest.importorskip("pvlib.location")
    rng = np.random.default_rng(0)
    places = np.stack((rng.uniform(-90, 90, 400), rng.uniform(-180, 180, 400)), axis=1)
    ours = elevation_m(places)
    assert np.nan_to_num(ours).tolist() == [location.lookup_altitude(*place) for place in places.tolist()]
    assert 0.4 < np.isnan(ours).mean() < 0.9, "at sea nothing is known, which is not the level of the sea"


def test_two_ends_of_a_parallel_are_one_place() -> None:
    lat = np.linspace(-90, 90, 181)
    west, east = (np.stack((lat, np.full_like(lat, lon)), axis=1) for lon in (-180.0, 180.0))
    assert (is_land(west) == is_land(east)).all()


def test_a_third_of_the_earth_is_land() -> None:
    mask = blue_marble.land_sea_mask()
    lat = np.linspace(-90, 90, 8641)[:-1] + 180 / 8640 / 2
    land_of_parallel = (mask == blue_marble.LAND).mean(axis=1)
    assert np.average(land_of_parallel, weights=np.cos(np.radians(lat))) == pytest.approx(0.29, abs=0.01)


def test_places_on_land_are_uniform_by_area_and_the_same_for_a_seed() -> None:
    places = uniform_on_land(4000, 0)
    assert is_land(places).all() and (places == uniform_on_land(4000, 0)).all()
    assert (places != uniform_on_land(4000, 1)).any()
    inside = places[(np.abs(places[:, 0]) < 12) & (places[:, 1] > 14) & (places[:, 1] < 28)]  # Africa, all land
    sine = np.sin(np.radians(inside[:, 0]))
    assert kstest(sine, "uniform", args=(np.sin(np.radians(-12)), 2 * np.sin(np.radians(12)))).pvalue > 0.01


def test_a_place_has_the_continent_of_its_country_and_none_at_sea() -> None:
    places = [[48.85, 2.35], [35.7, 139.7], [-1.3, 36.8], [-33.9, 151.2], [-15.8, -47.9], [40, -100], [-80, 0]]
    names = ["Europe", "Asia", "Africa", "Oceania", "South America", "North America", "Antarctica"]
    assert continents_of(np.array([*places, [0.0, -30.0]], dtype=np.float64)).tolist() == [*names, ""]


def test_without_the_reader_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    blue_marble._altitudes.cache_clear()
    with pytest.raises(GeoclipError, match=r"h5py is not installed: pip install .*\[probe\]"):
        elevation_m(np.zeros((1, 2)))
