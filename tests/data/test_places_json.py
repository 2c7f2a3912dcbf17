"""Coordinates in jsons of every form: read where there is one reading, refused with what was seen otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from geoclip.data.coordinates import coordinates_of

POINT = {"type": "Point", "coordinates": [-2.25, 48.5]}
READ: dict[str, Any] = {
    "flat": {"lat": 48.5, "lon": -2.25},
    "whole numbers as text": {"Latitude": "48.5", "Long": "-2.25"},
    "nested": {"title": "x", "gps": {"lat": 48.5, "lon": -2.25, "alt": 3}},
    "nested twice": {"exif": {"GPS": {"GPSLatitude": "48°30'N", "GPSLongitude": "2°15'W"}}},
    "the outer before the inner": {"lat": 48.5, "lon": -2.25, "camera": {"lat": 1, "lon": 2}},
    "the same twice": {"a": {"lat": 48.5, "lon": -2.25}, "b": {"latitude": 48.5, "longitude": -2.25}},
    "GeoJSON point": POINT,
    "GeoJSON feature": {"type": "Feature", "properties": {"name": "x"}, "geometry": POINT},
    "GeoJSON point with a height": POINT | {"coordinates": [-2.25, 48.5, 120.0]},
    "under a name": {"location": POINT},
    "as an object": {"coordinates": {"lat": 48.5, "lng": -2.25}},
    "decimal commas": {"lat": "48,5", "lon": "-2,25"},
}


@pytest.mark.parametrize("case", READ)
def test_one_reading_is_read(case: str) -> None:
    assert coordinates_of(json.dumps(READ[case]).encode()) == pytest.approx((48.5, -2.25))


def test_only_one_of_two_numbers_can_be_a_longitude_beyond_ninety() -> None:
    assert coordinates_of(b'{"coordinates": [151.2, -33.9]}') == (-33.9, 151.2)
    assert coordinates_of(b'{"coordinates": [-33.9, 151.2]}') == (-33.9, 151.2)


REFUSED: dict[str, tuple[Any, str]] = {
    "no coordinates": ({"title": "x", "width": 3}, "title, width"),
    "pixels of a box": ({"x": 34, "y": 50}, "x, y"),
    "two of a kind": ({"a": {"lat": 1, "lon": 2}, "b": {"lat": 3, "lon": 4}}, "several"),
    "no order": ({"coordinates": [48.5, 2.25]}, "order"),
    "null": ({"lat": None, "lon": 2}, "lat is null"),
    "a truth": ({"lat": True, "lon": 2}, "lat is bool"),
    "a word": ({"lat": "north", "lon": 2}, "lat"),
    "off the Earth": ({"gps": {"lat": 91, "lon": 181}}, "range"),
    "a list": ([1, 2], "object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_seen_is_in_the_reason(case: str) -> None:
    value, seen = REFUSED[case]
    with pytest.raises(ValueError, match=seen):
        coordinates_of(json.dumps(value).encode())
