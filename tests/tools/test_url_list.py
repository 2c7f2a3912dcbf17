from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from geoclip.errors import DataError
from tools.published_lists import sized
from tools.url_list import main, read_url_list, write_url_list

FLICKR = "http://farm4.staticflickr.com/3373"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(folder: Path) -> list[dict[str, object]]:
    parts = sorted((folder / "urls").glob("*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


@pytest.fixture
def urls(tmp_path: Path) -> Path:
    """Without a header, as TIB publishes MP16's."""
    return write(
        tmp_path / "mp16_urls.csv",
        f"45/77/1.jpg,{FLICKR}/1_ab.jpg",
        f"2e/b5/2.jpg,{FLICKR}/2_ab.jpg",
        f"11/22/007.jpg,{FLICKR}/007_ab.jpg",
    )


@pytest.fixture
def places(tmp_path: Path) -> Path:
    return write(
        tmp_path / "mp16_places365.csv",
        "IMG_ID,AUTHOR,LAT,LON,S3_Label",
        "11_22_007.jpg,7@N00,-33.5,151.25,0",  # some archives write _ for /
        "45/77/1,7@N00,46.778991,23.611207,0",  # or leave the suffix out
        "2e/b5/2.jpg,7@N00,40.445379,116.66399,1",
    )


def test_links_and_coordinates_are_joined_by_name_in_the_links_order(tmp_path: Path, urls: Path, places: Path) -> None:
    made = write_url_list(urls, tmp_path / "list", places)
    assert rows(tmp_path / "list") == [
        {"img_id": "45/77/1.jpg", "url": f"{FLICKR}/1_ab.jpg", "lat": 46.778991, "lon": 23.611207},
        {"img_id": "2e/b5/2.jpg", "url": f"{FLICKR}/2_ab.jpg", "lat": 40.445379, "lon": 116.66399},
        {"img_id": "11/22/007.jpg", "url": f"{FLICKR}/007_ab.jpg", "lat": -33.5, "lon": 151.25},
    ]
    assert made.rows == 3 and not made.rejected
    assert sorted(path.name for path in (tmp_path / "list").iterdir()) == ["list.json", "rejected.csv", "urls"]


def test_an_invalid_row_is_rejected_with_its_reason(tmp_path: Path) -> None:
    faults = {
        "a.jpg,,1,2": "no URL",
        "b.jpg,http://x/b.jpg,north,2": "no coordinates",
        "c.jpg,http://x/c.jpg,0,0.0": "coordinates are (0, 0)",
        "d.jpg,http://x/d.jpg,nan,2": "coordinates are not finite",
        "e.jpg,http://x/e.jpg,95,200": "coordinates out of range",
        "f.jpg,http://x/f.jpg,151.2,-33.9": "latitude and longitude look swapped",
        "good.png,http://x/g.jpg,1,2": "duplicate key",
        "h.jpg": "wrong number of columns",
    }
    urls = write(tmp_path / "list.csv", "name,PhotoURL,lat,lon", "good.jpg,http://x/good.jpg,1,2", *faults)
    made = write_url_list(urls, tmp_path / "list")
    with (tmp_path / "list" / "rejected.csv").open(newline="") as file:
        rejected = {row["key"]: row["reason"] for row in csv.DictReader(file)}
    assert rejected == {line.split(",")[0]: reason for line, reason in faults.items()}
    assert [row["img_id"] for row in rows(tmp_path / "list")] == ["good.jpg"]
    assert made.rejected["no URL"] == 1 and sum(made.rejected.values()) == len(faults)


@pytest.mark.parametrize(
    "count, part_rows, tar_rows, tars", [(7, 3, 2, 5), (6, 3, 3, 2), (6, 3, 2, 4), (2, 100, 1000, 1)]
)
def test_img2dataset_starts_a_new_tar_with_each_part(
    tmp_path: Path, count: int, part_rows: int, tar_rows: int, tars: int
) -> None:
    lines = [f"{number}.jpg,http://x/{number}.jpg,1,2" for number in range(count)]
    urls = write(tmp_path / "list.csv", "id,url,latitude,longitude", *lines)
    made = write_url_list(urls, tmp_path / "list", tar_rows=tar_rows, part_rows=part_rows)
    assert made.tars == tars
    assert len(list((tmp_path / "list" / "urls").iterdir())) == -(-count // part_rows)
    assert [row["img_id"] for row in rows(tmp_path / "list")] == [f"{number}.jpg" for number in range(count)]


def test_a_second_call_changes_nothing_and_other_arguments_are_refused(
    tmp_path: Path, urls: Path, places: Path
) -> None:
    first = write_url_list(urls, tmp_path / "list", places)
    stamp = (tmp_path / "list" / "list.json").stat().st_mtime_ns
    assert write_url_list(urls, tmp_path / "list", places) == first == read_url_list(tmp_path / "list")
    assert (tmp_path / "list" / "list.json").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match=r"tar_rows=1000.* 50"):
        write_url_list(urls, tmp_path / "list", places, tar_rows=50)
    write(urls, f"45/77/1.jpg,{FLICKR}/1_ab.jpg")
    with pytest.raises(DataError, match="urls_bytes"):
        write_url_list(urls, tmp_path / "list", places)


def test_an_interrupted_list_is_written_again(tmp_path: Path, urls: Path, places: Path) -> None:
    left = tmp_path / ".list.partial"
    (left / "urls").mkdir(parents=True)
    (left / "urls" / "part-00007.jsonl").write_text("half a li")
    (left / "known.sqlite").write_bytes(b"half")
    assert write_url_list(urls, tmp_path / "list", places).rows == 3
    assert [path.name for path in (tmp_path / "list" / "urls").iterdir()] == ["part-00000.jsonl"]
    assert not left.exists()


def test_lists_that_cannot_be_joined_are_named(tmp_path: Path, urls: Path) -> None:
    places = write(tmp_path / "p.csv", "IMG_ID,LAT", "1,2")
    with pytest.raises(DataError, match=r"p\.csv.* IMG_ID, LAT;.* lon"):
        write_url_list(urls, tmp_path / "list", places)
    with pytest.raises(DataError, match="urls=missing"):
        write_url_list(Path("missing"), tmp_path / "list")
    nowhere = write(tmp_path / "n.csv", "IMG_ID,LAT,LON", "other.jpg,1,2")
    with pytest.raises(SystemExit, match=r"\{'no coordinates': 3\}"):
        main(["--urls", str(urls), "--places", str(nowhere), "--out", str(tmp_path / "list")])
    assert not (tmp_path / "list").exists()


def test_only_flickr_links_without_a_size_get_one() -> None:
    assert sized(f"{FLICKR}/1_ab.jpg", "z") == f"{FLICKR}/1_ab_z.jpg"
    assert sized(f"{FLICKR}/1_ab.jpg", "") == f"{FLICKR}/1_ab.jpg"
    assert sized(f"{FLICKR}/1_ab_b.jpg", "z") == f"{FLICKR}/1_ab_b.jpg"
    assert sized("http://elsewhere.org/1_ab.jpg", "z") == "http://elsewhere.org/1_ab.jpg"
