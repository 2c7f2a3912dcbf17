"""The columns of every table met in the wild are found, and a user's own names come before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoclip.data.places_csv import Columns, find_columns, read_places
from geoclip.errors import DataError

LAYOUTS = {
    "the authors' loader": ("IMG_FILE,LAT,LON", ("IMG_FILE", "LAT", "LON")),
    "MP16": ("IMG_ID,LAT,LON", ("IMG_ID", "LAT", "LON")),
    "Im2GPS3k, YFCC26k": ("IMG_ID,AUTHOR,LAT,LON", ("IMG_ID", "LAT", "LON")),
    "YFCC4k": ("name,AUTHOR,lat,lon,license", ("name", "lat", "lon")),
    "Lightning re-implementation": ("id,latitude,longitude", ("id", "latitude", "longitude")),
    "MP16-Pro": (
        "IMG_ID,LAT,LON,neighbourhood,city,county,state,region,country,continent",
        ("IMG_ID", "LAT", "LON"),
    ),
    "GWS15k": ("path,lat,lon", ("path", "lat", "lon")),
    "gallery": ("LAT,LON", ("", "LAT", "LON")),
    "another gallery": ("latitude,longitude", ("", "latitude", "longitude")),
    "places365 of MP16": ("IMG_ID,LAT,LON,S3_Label,S16_Label,S365_Label", ("IMG_ID", "LAT", "LON")),
    "a frame with its index": (",Name,Latitude,Lng", ("Name", "Latitude", "Lng")),
    "both names of one thing": ("id,IMG_ID,latitude,LAT,LON", ("IMG_ID", "LAT", "LON")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_known(layout: str, tmp_path: Path) -> None:
    header, (key, lat, lon) = LAYOUTS[layout]
    names = header.split(",")
    assert find_columns(names, "it") == Columns(key=key, lat=lat, lon=lon)
    values = {key: "007.jpg", lat: "1.5", lon: "-2.5"}
    table = tmp_path / "table.csv"
    table.write_text(f"{header}\n{','.join(values.get(name, 'x') for name in names)}\n")
    row = read_places(table, "table").iloc[0]
    assert (row["lat"], row["lon"]) == (1.5, -2.5)
    assert ("key" in row) == bool(key)
    assert not key or row["key"] == "007.jpg"


def test_names_that_look_like_numbers_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name,lat,lon\n0012345,1,2\n")
    assert read_places(tmp_path / "t.csv", "table")["key"].tolist() == ["0012345"]


def test_what_the_user_names_comes_first(tmp_path: Path) -> None:
    named = Columns(key="photo", lat="y")
    assert find_columns(["id", "photo", "LAT", "y", "LON"], "it", named) == Columns(
        key="photo", lat="y", lon="LON"
    )
    (tmp_path / "t.csv").write_text("key,photo,lat,y,LON\nwrong,a.jpg,9,1,2\n")
    row = read_places(tmp_path / "t.csv", "table", named).iloc[0]
    assert (row["key"], row["lat"], row["lon"]) == ("a.jpg", 1, 2)


def test_a_named_column_that_is_not_there_is_said_so() -> None:
    with pytest.raises(
        DataError, match=r"t\.csv has no column 'y', which columns\.lat names; it has LAT, LON"
    ):
        find_columns(["LAT", "LON"], "t.csv", Columns(lat="y"))


def test_a_table_without_places_is_refused() -> None:
    with pytest.raises(DataError, match=r"t\.csv has the columns a, b; needed are LAT and LON"):
        find_columns(["a", "B"], "t.csv")
