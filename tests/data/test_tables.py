"""Tables of every published layout, encoding and separator are read; ambiguous ones are rejected."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoclip.data.tables import Columns, find_columns, open_table, read_coordinates
from geoclip.errors import DataError

LAYOUTS = {
    "the authors' loader": ("IMG_FILE,LAT,LON", ("IMG_FILE", "LAT", "LON")),
    "MP16": ("IMG_ID,LAT,LON", ("IMG_ID", "LAT", "LON")),
    "Im2GPS3k, YFCC26k": ("IMG_ID,AUTHOR,LAT,LON", ("IMG_ID", "LAT", "LON")),
    "YFCC4k": ("name,AUTHOR,lat,lon,license", ("name", "lat", "lon")),
    "Lightning re-implementation": ("id,latitude,longitude", ("id", "latitude", "longitude")),
    "MP16-Pro": ("IMG_ID,LAT,LON,neighbourhood,city,county,state,region,country,continent", ("IMG_ID", "LAT", "LON")),
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
    row = read_coordinates(table, "table").iloc[0]
    assert (row["lat"], row["lon"]) == (1.5, -2.5)
    assert ("key" in row) == bool(key)
    assert not key or row["key"] == "007.jpg"


def test_names_that_look_like_numbers_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Name,lat,lon\n0012345,1,2\n")
    assert read_coordinates(tmp_path / "t.csv", "table")["key"].tolist() == ["0012345"]


def test_columns_that_the_user_names_come_first(tmp_path: Path) -> None:
    named = Columns(key="photo", lat="y")
    assert find_columns(["id", "photo", "LAT", "y", "LON"], "it", named) == Columns(key="photo", lat="y", lon="LON")
    (tmp_path / "t.csv").write_text("key,photo,lat,y,LON\nwrong,a.jpg,9,1,2\n")
    row = read_coordinates(tmp_path / "t.csv", "table", named).iloc[0]
    assert (row["key"], row["lat"], row["lon"]) == ("a.jpg", 1, 2)


@pytest.mark.parametrize(
    ("header", "named", "message"),
    [
        (["LAT", "LON"], Columns(lat="y"), r"t\.csv .*'y' .*columns\.lat.* LAT, LON"),
        (["a", "B"], None, r"t\.csv .* a, B.* LAT and LON"),
    ],
)
def test_missing_columns_are_named(header: list[str], named: Columns | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_columns(header, "t.csv", named)


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


REFUSED: dict[str, tuple[str | bytes, list[str]]] = {
    "one field more than the header": ("IMG_ID,LAT,LON\na,10,20,30\n", ["line 2", "a, 10, 20, 30", "4", "3"]),
    "one field fewer": ("IMG_ID,LAT,LON\na,1,2\nb,3\n", ["line 3", "b, 3", "2", "3"]),
    "unquoted decimal commas": ("id,lat,lon\na,48,85,2,29\n", ["line 2", "decimal commas", "';'"]),
    "one of many": ("lat,lon\n1,2\n3,4,5\n6,7\n8,9,10\n", ["line 3", "3, 4, 5", "2 such rows"]),
    "a header twice": ("id,lat,lon,lat\na,1,2,3\n", ["'lat'"]),
    "a header twice but for its case": ("id,Lat,lat,lon\na,1,2,3\n", ["Lat and lat"]),
    "no header": ("48.85,2.35\n1,2\n", ["48.85, 2.35", "LAT,LON"]),
    "both in one column": ("id,latlon\na,1\n", ["'latlon'"]),
    "another line between quotes": ('id,lat,lon\n"a\nb",1,2\nc,95,3\n', ["line 4", "lat='95'"]),
    "a separator in a name": ("name,lat,lon\nParis, France,48.85,2.35\n", ["line 2", "Paris,  France", "quote"]),
    "underscores": ("lat,lon\n4_8,2\n", ["line 2", "lat='4_8'"]),
    "two numbers in a cell": ("lat,lon\n48.85 2.35,2\n", ["line 2", "lat='48.85 2.35'"]),
    "the other's hemisphere": ("lat,lon\n48 E,2\n", ["line 2", "E", "lat='48 E'"]),
    "swapped": ("lat,lon\n151.2,-33.9\n", ["line 2", "lat='151.2'", "swapped"]),
    "metres": ("y,x\n5411935.2,448251.8\n", ["line 2", "y='5411935.2'", "degrees"]),
    "longitudes of a full circle": ("lat,lon\n1,2\n3,200\n", ["line 3", "lon='200'", "360"]),
    "infinite": ("lat,lon\ninf,2\n", ["line 2", "lat='inf'"]),
    "seventy seconds": ("lat,lon\n48°51'70\"N,2\n", ["line 2", "seconds"]),
    "an Excel workbook": (b"PK\x03\x04\x14\0\0\0", ["Excel", "CSV"]),
    "a binary file": (b"\0\1\2\3\n", ["zero byte"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_ambiguous_table_is_rejected_with_line_and_value(case: str, tmp_path: Path) -> None:
    content, named = REFUSED[case]
    with pytest.raises(DataError) as caught:
        read_coordinates(written(tmp_path, content), "gallery")
    assert [part for part in ["t.csv", *named] if part not in str(caught.value)] == []


READ: dict[str, str | bytes] = {
    "semicolons": "name;lat;lon\na;48.5;-2.25\n",
    "tabs": "name\tlat\tlon\na\t48.5\t-2.25\n",
    "bars": "name|lat|lon\na|48.5|-2.25\n",
    "spaces": "name lat lon\na  48.5 -2.25\n",
    "what Excel writes": "sep=;\r\nname;lat;lon\r\na;48,5;-2,25\r\n",
    "decimal commas": "name;lat;lon\na;48,5;-2,25\n",
    "quoted decimal commas": 'name,lat,lon\na,"48,5","-2,25"\n',
    "minutes": "name,lat,lon\na,48°30'N,2°15'W\n",
    "minutes and seconds": 'name,lat,lon\na,"48° 29\' 59.9999999999"" N","W 2°14′59.9999999999″"\n',
    "colons": "name,lat,lon\na,48:30:00,-2:15\n",
    "exiftool": 'name,lat,lon\na,"48 deg 30\' 0.00"" N","2 deg 15\' 0.00"" W"\n',
    "a typographic minus sign": "name,lat,lon\na,48.5,\N{MINUS SIGN}2.25\n",
    "separators at the lines' ends": "name,lat,lon\na,48.5,-2.25,,\n",
    "another header's names": "file_name,Lat.,Long\na,48.5,-2.25\n",
    "Darwin Core": "id,decimalLatitude,decimalLongitude\na,48.5,-2.25\n",
    "units": "filename,lat (deg),lon [°]\na,48.5,-2.25\n",
    "y and x": "id,y,x\na,48.5,-2.25\n",
    "x and y": "id,x,y\na,-2.25,48.5\n",
    "EXIF's names": "filename,GPS Latitude,GPS Longitude\na,48.5,-2.25\n",
    "numpy's comment": "# name,lat,lon\na,48.5,-2.25\n",
    "comments above the header": "# exported on 2024-05-01, by hand\n#\nname,lat,lon\na,48.5,-2.25\n",
    "comments above numpy's comment": "# by hand\n# name,lat,lon\na,48.5,-2.25\n",
    "UTF-16 without a mark": "name,lat,lon\na,48.5,-2.25\n".encode("utf-16-le"),
    "UTF-16, the other way round": "name;lat;lon\r\na;48,5;-2,25\r\n".encode("utf-16-be"),
    "blank lines": "\n\nname,lat,lon\n\na,48.5,-2.25\n\n",
    "old Macs' lines": "name,lat,lon\ra,48.5,-2.25\r",
    "a mark of UTF-8": "\ufeffname,lat,lon\na,48.5,-2.25\n",
    "commas in other columns": "note;name;lat,deg;lat;lon\nx,y;a;1,5;48.5;-2.25\n",
}


@pytest.mark.parametrize("case", READ)
def test_an_unambiguous_table_is_read(case: str, tmp_path: Path) -> None:
    row = read_coordinates(written(tmp_path, READ[case]), "gallery").iloc[0]
    assert (row["lat"], row["lon"]) == (pytest.approx(48.5, abs=1e-9), pytest.approx(-2.25, abs=1e-9))
    assert row["key"] == "a"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_names_are_read_in_the_encoding_of_the_file(encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, "name,lat,lon\nplain,1,2\nJosé à Nîmes,3,4\nGroß,5,6\n".encode(encoding))
    assert read_coordinates(path, "gallery")["key"].tolist() == ["plain", "José à Nîmes", "Groß"]


def test_cyrillic_and_japanese_names_are_decoded(tmp_path: Path) -> None:
    for name, encoding in (("Красная площадь в Москве", "cp1251"), ("東京都渋谷区の写真", "shift_jis")):
        path = written(tmp_path, f"name,lat,lon\n{name},3,4\n".encode(encoding))
        assert read_coordinates(path, "gallery")["key"].tolist() == [name]


def test_a_corrupt_line_of_a_utf8_table_does_not_change_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, "name,lat,lon\nJosé,1,2\n".encode() + b"Jos\xe9,3,4\n")
    assert open_table(path, "gallery").encoding == "utf-8"
    with pytest.raises(DataError, match=r"line 3.*utf-8"):
        read_coordinates(path, "gallery")


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_compressed_tables_are_read(opener: Any, tmp_path: Path) -> None:
    with opener(tmp_path / "t.csv.z", "wb") as file:
        file.write(b"lat,lon\n1,2\n")
    assert read_coordinates(tmp_path / "t.csv.z", "gallery").to_numpy().tolist() == [[1, 2]]


def test_every_number_is_read_to_its_last_bit(tmp_path: Path) -> None:
    gps_deg = np.random.default_rng(0).uniform((-90, -180), (90, 180), (40_000, 2))
    lines = [f"{lat!r},{lon!r}" for lat, lon in gps_deg.tolist()]
    found = read_coordinates(written(tmp_path, "lat,lon\n" + "\n".join(lines)), "gallery")
    assert np.array_equal(found[["lat", "lon"]].to_numpy(), gps_deg)


def test_whether_zero_zero_is_a_coordinate_does_not_depend_on_other_rows(tmp_path: Path) -> None:
    for other in ("1,2", '"1,5",2'):  # plain numbers, and a decimal comma, for which another parser is used
        path = tmp_path / "points.csv"
        path.write_text(f"LAT,LON\n0,0\n{other}\n")
        assert read_coordinates(path, "gallery")[["lat", "lon"]].iloc[0].tolist() == [0, 0]
