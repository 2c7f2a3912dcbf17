"""Countries of known locations, at borders, coasts and the antimeridian."""

from __future__ import annotations

import numpy as np
import pytest

from geoclip.data.countries import alpha2_codes, countries_of, world_map
from geoclip.errors import DataError

CITIES = {
    "Paris": (48.8566, 2.3522, "FR"), "Strasbourg": (48.5734, 7.7521, "FR"), "Kehl": (48.5728, 7.8152, "DE"),
    "Geneva": (46.2044, 6.1432, "CH"), "Basel": (47.5476, 7.5897, "CH"), "Weil am Rhein": (47.5947, 7.6109, "DE"),
    "Monaco": (43.7384, 7.4246, "MC"), "San Marino": (43.9356, 12.4473, "SM"), "Rome": (41.8902, 12.4922, "IT"),
    "Detroit": (42.3314, -83.0458, "US"), "Windsor": (42.3149, -83.0364, "CA"), "Tijuana": (32.5149, -117.0382, "MX"),
    "San Ysidro": (32.5520, -117.0430, "US"), "Hong Kong": (22.2793, 114.1628, "HK"),
    "Shenzhen": (22.5431, 114.0579, "CN"), "Singapore": (1.2834, 103.8607, "SG"),
    "Johor Bahru": (1.4927, 103.7414, "MY"), "Maseru": (-29.3151, 27.4869, "LS"),
    "Reykjavik": (64.1466, -21.9426, "IS"), "Oslo": (59.9139, 10.7522, "NO"), "Longyearbyen": (78.2232, 15.6267, "NO"),
    "Taipei": (25.0330, 121.5654, "TW"), "Pristina": (42.6629, 21.1655, "XK"), "Simferopol": (44.9521, 34.1024, "UA"),
    "Bethlehem": (31.7054, 35.2024, "PS"), "Sydney": (-33.8568, 151.2153, "AU"), "McMurdo": (-77.8419, 166.6863, "AQ"),
    "San Juan": (18.4655, -66.1057, "PR"), "Saint-Denis, an overseas region": (-20.8789, 55.4481, "FR"),
    "Uelen, Russia's western hemisphere": (66.159, -169.809, "RU"), "Taveuni, at 180°": (-16.82, -179.97, "FJ"),
    "the Golden Gate Bridge, over water": (37.8199, -122.4783, "US"), "a pier at Brighton": (50.8152, -0.1371, "GB"),
    "the Atlantic": (30.0, -40.0, ""), "the Gulf of Guinea": (0.0, 0.0, ""), "Guantanamo": (19.93, -75.12, ""),
}  # fmt: skip


def test_cities_are_in_their_countries() -> None:
    gps_deg_N2 = np.array([city[:2] for city in CITIES.values()])
    found = dict(zip(CITIES, countries_of(gps_deg_N2).tolist(), strict=True))
    assert found == {name: code for name, (_, _, code) in CITIES.items()}


def test_the_territorial_sea_belongs_to_its_country_and_no_more() -> None:
    lat_deg = 43.26
    south_of_marseille = np.array([[lat_deg - km / 111.2, 5.2] for km in (5, 15, 60, 120)])
    assert countries_of(south_of_marseille).tolist() == ["FR", "FR", "", ""]


def test_codes_of_two_and_three_letters_in_any_case_are_known() -> None:
    assert alpha2_codes(["fr", "DEU", " NOR", "FR"]) == ("DE", "FR", "NO")
    assert len(set(world_map().alpha2.tolist())) > 230
    for name in ("XX", "-99", ""):
        with pytest.raises(DataError, match=f"country={name} .*239"):
            alpha2_codes([name])
    with pytest.raises(DataError, match="FRA"):
        alpha2_codes(["FRX"])
