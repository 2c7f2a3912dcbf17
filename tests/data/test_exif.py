"""The place in a photograph's EXIF: read, refused where it is none, and never used by a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from geoclip.data.coordinates import exif_coordinates


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


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: rational(48, 51, 30)},
        PARIS | {2: rational(148, 51, 30)},
        PARIS | {2: (TiffImagePlugin.IFDRational(1, 0),) * 3},
    ],
)
def test_what_is_no_place_is_none(tmp_path: Path, gps: dict[int, Any]) -> None:
    assert exif_coordinates(photograph(tmp_path / "a.jpg", gps)) is None


def test_a_broken_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert exif_coordinates(tmp_path / "a.jpg") is None


UNKNOWN = TiffImagePlugin.IFDRational(0, 0)


def test_seconds_that_were_not_measured_count_as_none(tmp_path: Path) -> None:
    minutes = PARIS | {2: (*rational(48, 51.5), UNKNOWN), 4: (*rational(2, 17.25), UNKNOWN)}
    found = exif_coordinates(photograph(tmp_path / "a.jpg", minutes))
    assert found == pytest.approx((48 + 51.5 / 60, 2 + 17.25 / 60), abs=1e-6)
    fraction = PARIS | {2: (*rational(48.8584), UNKNOWN, UNKNOWN)}
    assert exif_coordinates(photograph(tmp_path / "b.jpg", fraction)) == pytest.approx((48.8584, 2.2945), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({2: (*rational(48), UNKNOWN, UNKNOWN)}, "GPSLatitude=(48"),  # to a degree or to the kilometre?
        ({1: ""}, "GPSLatitudeRef=''"),
        ({1: "E"}, "GPSLatitudeRef='E'"),
        ({4: rational(2, 75, 0)}, "GPSLongitude=(2"),
        ({2: rational(148, 51, 30)}, "GPSLatitude=(148"),
    ],
)
def test_coordinates_that_cannot_be_used_are_reported(
    tmp_path: Path, change: dict[int, Any], seen: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert exif_coordinates(photograph(tmp_path / "a.jpg", PARIS | change)) is None
    (record,) = caplog.records
    assert "a.jpg" in record.getMessage() and seen in record.getMessage()


def test_a_photograph_without_coordinates_needs_no_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert exif_coordinates(photograph(tmp_path / "a.jpg", {})) is None
    assert not caplog.records
