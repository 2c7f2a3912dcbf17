"""Labels from packaged maps, at known locations and against the library of the map."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import kstest

from geoclip.data import blue_marble
from geoclip.data.blue_marble import elevation_m, is_land, uniform_on_land
from geoclip.data.countries import continents_of
from geoclip.errors import GeoclipError

LOCATIONS = {
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


@pytest.mark.parametrize("name", LOCATIONS)
def test_known_locations_have_their_elevation_and_land_or_sea(name: str) -> None:
    lat, lon, land, height_m = LOCATIONS[name]
    assert is_land(np.array([[lat, lon]])).item() is land
    if height_m is not None:
        assert height_m[0] <= elevation_m(np.array([[lat, lon]])).item() <= height_m[1]


def test_elevation_is_what_pvlib_reads_from_its_own_map() -> None:
    location = pytest.importorskip("pvlib.location")
    rng = np.random.default_rng(0)
    gps_deg_N2 = np.stack((rng.uniform(-90, 90, 400), rng.uniform(-180, 180, 400)), axis=1)
    ours = elevation_m(gps_deg_N2)
    assert np.nan_to_num(ours).tolist() == [location.lookup_altitude(*pair) for pair in gps_deg_N2.tolist()]
    assert 0.4 < np.isnan(ours).mean() < 0.9, "no value at sea"


def test_the_two_ends_of_a_parallel_are_one_location() -> None:
    lat = np.linspace(-90, 90, 181)
    west, east = (np.stack((lat, np.full_like(lat, lon)), axis=1) for lon in (-180.0, 180.0))
    assert (is_land(west) == is_land(east)).all()


def test_a_third_of_the_earth_is_land() -> None:
    mask = blue_marble.land_sea_mask()
    lat = np.linspace(-90, 90, 8641)[:-1] + 180 / 8640 / 2
    land_of_parallel = (mask == blue_marble.LAND).mean(axis=1)
    assert np.average(land_of_parallel, weights=np.cos(np.radians(lat))) == pytest.approx(0.29, abs=0.01)


def test_locations_on_land_are_uniform_by_area_and_the_same_for_a_seed() -> None:
    drawn = uniform_on_land(4000, 0)
    assert is_land(drawn).all() and (drawn == uniform_on_land(4000, 0)).all()
    assert (drawn != uniform_on_land(4000, 1)).any()
    inside = drawn[(np.abs(drawn[:, 0]) < 12) & (drawn[:, 1] > 14) & (drawn[:, 1] < 28)]  # Africa, all land
    sine = np.sin(np.radians(inside[:, 0]))
    assert kstest(sine, "uniform", args=(np.sin(np.radians(-12)), 2 * np.sin(np.radians(12)))).pvalue > 0.01


def test_a_location_has_the_continent_of_its_country_and_none_at_sea() -> None:
    locations = [[48.85, 2.35], [35.7, 139.7], [-1.3, 36.8], [-33.9, 151.2], [-15.8, -47.9], [40, -100], [-80, 0]]
    names = ["Europe", "Asia", "Africa", "Oceania", "South America", "North America", "Antarctica"]
    assert continents_of(np.array([*locations, [0.0, -30.0]], dtype=np.float64)).tolist() == [*names, ""]


def test_without_the_reader_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    blue_marble._altitudes.cache_clear()
    with pytest.raises(GeoclipError, match=r"h5py .*\[probe\]"):
        elevation_m(np.zeros((1, 2)))
