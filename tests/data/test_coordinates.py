"""Coordinates in JSON and EXIF: read if they are unambiguous, rejected with their values otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from geoclip.data.coordinates import coordinates_of, exif_coordinates, parse_degrees

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
def test_unambiguous_json_is_read(case: str) -> None:
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
def test_the_reason_contains_what_was_found(case: str) -> None:
    value, seen = REFUSED[case]
    with pytest.raises(ValueError, match=seen):
        coordinates_of(json.dumps(value).encode())


def photograph(path: Path, gps: dict[int, Any]) -> Path:
    image, exif = Image.new("RGB", (20, 20), "green"), Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    exif[ExifTags.IFD.GPSInfo] = exif.get_ifd(ExifTags.IFD.GPSInfo)
    image.save(path, exif=exif)
    return path


def rational(*values: float) -> tuple[TiffImagePlugin.IFDRational, ...]:
    return tuple(TiffImagePlugin.IFDRational(round(value * 10_000), 10_000) for value in values)


PARIS = {1: "N", 2: rational(48, 51, 30.24), 3: "E", 4: rational(2, 17, 40.2)}


def test_degrees_minutes_seconds_and_hemispheres(tmp_path: Path) -> None:
    assert exif_coordinates(photograph(tmp_path / "a.jpg", PARIS)) == pytest.approx((48.8584, 2.2945), abs=1e-6)
    southwest = PARIS | {1: "S", 3: "W"}
    assert exif_coordinates(photograph(tmp_path / "b.jpg", southwest)) == pytest.approx((-48.8584, -2.2945), abs=1e-6)


UNKNOWN = TiffImagePlugin.IFDRational(0, 0)


def test_unknown_seconds_count_as_zero(tmp_path: Path) -> None:
    minutes = PARIS | {2: (*rational(48, 51.5), UNKNOWN), 4: (*rational(2, 17.25), UNKNOWN)}
    found = exif_coordinates(photograph(tmp_path / "a.jpg", minutes))
    assert found == pytest.approx((48 + 51.5 / 60, 2 + 17.25 / 60), abs=1e-6)
    fraction = PARIS | {2: (*rational(48.8584), UNKNOWN, UNKNOWN)}
    assert exif_coordinates(photograph(tmp_path / "b.jpg", fraction)) == pytest.approx((48.8584, 2.2945), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({2: (*rational(48), UNKNOWN, UNKNOWN)}, "GPSLatitude=(48"),  # to a degree or to the kilometre?
        ({2: (TiffImagePlugin.IFDRational(1, 0),) * 3}, "GPSLatitude=(1/0"),
        ({3: None, 4: None}, "GPSLongitude=None"),
        ({1: ""}, "GPSLatitudeRef=''"),
        ({1: "E"}, "GPSLatitudeRef='E'"),
        ({4: rational(2, 75, 0)}, "GPSLongitude=(2"),
        ({2: rational(148, 51, 30)}, "GPSLatitude=(148"),
    ],
)
def test_coordinates_that_cannot_be_used_are_reported(
    tmp_path: Path, change: dict[int, Any], seen: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        exif_coordinates(
            photograph(tmp_path / "a.jpg", {tag: value for tag, value in (PARIS | change).items() if value is not None})
        )
        is None
    )
    (record,) = caplog.records
    assert "a.jpg" in record.getMessage() and seen in record.getMessage()


def test_a_file_without_coordinates_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert exif_coordinates(photograph(tmp_path / "a.jpg", {})) is None
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert exif_coordinates(tmp_path / "b.jpg") is None
    assert not caplog.records


def test_thousands_of_digits_are_rejected_at_once() -> None:
    """The pattern of degrees, minutes and seconds takes cubic time; this would take hours."""
    with pytest.raises(ValueError, match="numbers"):
        parse_degrees("1" * 20_000 + "x", "NS")
