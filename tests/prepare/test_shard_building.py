"""Shards of a table and its pictures contain every good row once, and a second build gives the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shards import read_shards
from geoclip.errors import DataError

Photo = Callable[..., bytes]
SamplesIn = Callable[..., dict[str, tuple[dict[str, Any], str, bytes]]]
Build = Callable[..., bool]
RejectedIn = Callable[[Path], list[tuple[str, str, str]]]


@pytest.mark.parametrize(
    ("rows", "picture"),
    [
        ("IMG_FILE,LAT,LON\na.jpg,1.5,2.5", "a.jpg"),  # the authors' loader
        ("IMG_ID,AUTHOR,LAT,LON\n1_78841376@N00.jpg,0,1.5,2.5", "1_78841376@N00.jpg"),  # Im2GPS3k
        ("name,AUTHOR,lat,lon,license\n10201275523.jpg,0,1.5,2.5,CC", "images/10201275523.jpg"),  # YFCC4k
        ("id,latitude,longitude\n0012345,1.5,2.5", "images/0012345.jpg"),  # the Lightning re-implementation
        ("IMG_ID,LAT,LON\n45/77/322.jpg,1.5,2.5", "45/77/322.jpg"),  # MP16
        ("IMG_ID,LAT,LON\n45/77/322.jpg,1.5,2.5", "images/45/77/322.jpg"),
        ("IMG_ID,LAT,LON\n45/77/322.jpg,1.5,2.5", "45_77_322.jpg"),  # some archives
        ("IMG_ID,LAT,LON\n45/77/322.jpg,1.5,2.5", "images/45_77_322.jpg"),
        ("IMG_ID,LAT,LON\n45_77_322.jpg,1.5,2.5", "images/45/77/322.jpg"),
        ("IMG_ID,LAT,LON\n45/77/322.jpg,1.5,2.5", "322.jpg"),
        ("IMG_ID,LAT,LON\n45/77/322,1.5,2.5", "images/45_77_322.webp"),
        ("IMG_ID,LAT,LON,city,country\n45/77/322,1.5,2.5,Köln,Germany", "45/77/322.png"),  # MP16-Pro
        ("\ufeffkey,Lat,Lng\n.\\45\\77\\322.JPG,1.5,2.5", "45/77/322.JPG"),
    ],
)
def test_every_published_layout_becomes_a_shard(
    tmp_path: Path, photo: Photo, build: Build, samples_in: SamplesIn, rejected_in: RejectedIn, rows: str, picture: str
) -> None:
    path = tmp_path / "source" / picture
    path.parent.mkdir(parents=True)
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix, "JPEG")
    path.write_bytes(photo(kind=kind))
    (tmp_path / "source" / "t.csv").write_text(rows + "\n", encoding="utf-8")
    build(tmp_path / "shards", input=str(tmp_path / "source" / "t.csv"))
    ((key, (fields, suffix, data)),) = samples_in(tmp_path / "shards" / "train").items()
    named = dict(zip(rows.lstrip("\ufeff").split("\n")[0].split(","), rows.split("\n")[1].split(","), strict=True))
    assert (fields["lat"], fields["lon"], fields["key"]) == (1.5, 2.5, rows.split("\n")[1].split(",")[0])
    assert key.replace("_", "/") in fields["key"].replace("\\", "/").replace("_", "/") and "." not in key
    assert suffix == {".png": "png", ".webp": "webp"}.get(path.suffix, "jpg")
    assert data == path.read_bytes()
    assert all(fields[name] == value for name, value in named.items() if name in ("AUTHOR", "city", "license"))
    assert rejected_in(tmp_path / "shards") == []


def test_every_rejected_row_is_named_with_its_reason(
    tmp_path: Path, photo: Photo, build: Build, samples_in: SamplesIn, rejected_in: RejectedIn
) -> None:
    bomb = io.BytesIO()
    Image.new("1", (40_000, 10_000)).save(bomb, "PNG")
    files = {
        "good.jpg": photo(1),
        "again.jpg": photo(2),
        "rome/1.jpg": photo(3),
        "empty.jpg": b"",
        "page.jpg": b"\n<!DOCTYPE html><html>This photo is no longer available</html>",
        "text.jpg": b"gone",
        "cut.jpg": photo(4, (200, 200))[:900],
        "bomb.png": bomb.getvalue(),
    }
    for name, data in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "source" / "folder.jpg").mkdir()
    lines = [
        ("good.jpg,1,2,x", ""),
        ("", ""),  # an empty line is not a row
        (",1,2,x", "no key"),
        (".jpg,1,2,x", "no key"),
        ("good.jpg,,2,x", "no coordinates"),
        ("good.jpg,north,2,x", "coordinates are not numbers"),
        ("good.jpg,nan,2,x", "coordinates are not finite"),
        ("good.jpg,1,-inf,x", "coordinates are not finite"),
        ("good.jpg,0,0.0,x", "coordinates are (0, 0)"),
        ("good.jpg,91,181,x", "coordinates out of range"),
        ("good.jpg,151.2,-33.9,x", "latitude and longitude look swapped"),
        ("good.jpg,1,2", "wrong number of columns"),
        ('"good".jpg,1,2,x', "corrupt quotes"),
        ('again.jpg,-0.5,180,"two\nlines"', ""),
        ("../good.jpg,1,2,x", "path traversal in its key"),
        ("again.jpg,3,4,x", "duplicate key"),
        ("nowhere.jpg,1,2,x", "missing picture"),
        ("folder.jpg,1,2,x", "missing picture"),
        ("paris/1.jpg,1,2,x", "missing picture"),  # not Rome's picture of the same name
        ("rome/1.jpg,1,2,x", ""),
        ("empty.jpg,1,2,x", "empty picture"),
        ("page.jpg,1,2,x", "HTML, no picture"),
        ("text.jpg,1,2,x", "unreadable picture (UnidentifiedImageError)"),
        ("cut.jpg,1,2,x", "truncated picture"),
        ("bomb.png,1,2,x", f"more pixels than max_pixels={MAX_PIXELS} allows"),
    ]
    table = tmp_path / "source" / "t.csv"
    table.write_text("\n".join(["IMG_ID,LAT,LON,note", *(line for line, _ in lines)]))
    build(tmp_path / "shards", input=str(table), max_rejected_fraction=0.95)
    assert sorted(samples_in(tmp_path / "shards" / "train")) == ["again", "good", "rome_1"]
    expected, line_number = [], 2
    for line, reason in lines:
        if reason:
            key = line if reason == "wrong number of columns" else line.split(",")[0]
            expected.append((str(line_number), "" if reason == "corrupt quotes" else key, reason))
        line_number += 1 + line.count("\n")
    assert rejected_in(tmp_path / "shards") == expected
    described = json.loads((tmp_path / "shards" / "metadata.json").read_text())
    assert (described["accepted"], described["rejected"]) == (3, len(expected))
    assert described["reasons"]["missing picture"] == 3


def zipped(folder: Path, archive: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path in sorted(folder.glob("*.jpg")):
            packed.write(path, f"photos/{path.name}")
    return archive


@pytest.mark.parametrize("kind", ["deflated", "stored", "tar"])
def test_pictures_in_an_archive_give_the_same_shards_as_in_a_folder(
    tmp_path: Path, photo_table: Callable[..., Path], build: Build, kind: str
) -> None:
    table = photo_table(12)
    if kind == "tar":
        archive = tmp_path / "photos.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(table.parent, "photos")
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        archive = zipped(table.parent, tmp_path / "photos.zip", method)
    build(tmp_path / "a", input=str(table))
    build(tmp_path / "b", input=str(table), images=str(archive), workers=2)
    a, b = (tmp_path / name / "train" / "000000.tar" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_a_corrupt_member_of_a_zip_is_rejected_and_a_truncated_archive_named(
    tmp_path: Path, photo_table: Callable[..., Path], build: Build, rejected_in: RejectedIn
) -> None:
    table = photo_table(12)
    archive = zipped(table.parent, tmp_path / "photos.zip", zipfile.ZIP_STORED)
    data = archive.read_bytes()
    at = data.index((table.parent / "03.jpg").read_bytes()) + 400
    archive.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    build(tmp_path / "shards", input=str(table), images=str(archive), max_rejected_fraction=0.5)
    assert rejected_in(tmp_path / "shards") == [("5", "03.jpg", "corrupt zip member")]
    for name, content in (("cut.zip", data[: len(data) // 2]), ("empty.tar", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"images={tmp_path / name} cannot be read"):
            build(tmp_path / "other", input=str(table), images=str(tmp_path / name))


def test_shards_are_equal_shuffled_and_a_function_of_seed_and_keys(
    tmp_path: Path, photo_table: Callable[..., Path], build: Build, samples_in: SamplesIn
) -> None:
    table = photo_table(43)
    build(tmp_path / "a", input=str(table), samples_per_shard=10, val_samples=6)
    assert [shard.samples for shard in read_shards(str(tmp_path / "a"), "train")] == [10, 9, 9, 9]
    assert [shard.samples for shard in read_shards(str(tmp_path / "a"), "val")] == [6]
    assert (tmp_path / "a" / "train" / ".geoclip-index" / "000003.tar.npz").is_file()
    train, val = list(samples_in(tmp_path / "a" / "train")), list(samples_in(tmp_path / "a" / "val"))
    assert sorted(train + val) == [f"{number:02d}" for number in range(43)]
    assert train != sorted(train)
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]) + "\n")
    build(tmp_path / "b", input=str(table), samples_per_shard=10, val_samples=6)
    for path in sorted((tmp_path / "a").glob("*/*.tar")):
        assert (tmp_path / "b" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    build(tmp_path / "c", input=str(table), samples_per_shard=10, val_samples=6, seed=1)
    assert list(samples_in(tmp_path / "c" / "val")) != val


def test_large_pictures_are_scaled_and_others_copied(
    tmp_path: Path, photo: Photo, build: Build, samples_in: SamplesIn
) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6  # a quarter turn
    files = {
        "small": photo(0, (64, 48)),
        "wide": photo(1, (640, 480)),
        "tall": photo(2, (100, 333), "PNG"),
        "turned": photo(3, (200, 100), exif=rotated),
    }
    (tmp_path / "source").mkdir()
    for name, data in files.items():
        (tmp_path / "source" / f"{name}.jpg").write_bytes(data)
    table = tmp_path / "source" / "t.csv"
    table.write_text("IMG_ID,LAT,LON\n" + "".join(f"{name}.jpg,1,2\n" for name in files))
    build(tmp_path / "shards", input=str(table), max_side_px=64, jpeg_quality=85)
    found = samples_in(tmp_path / "shards" / "train")
    assert found["small"][2] == files["small"]
    sizes = {key: Image.open(io.BytesIO(data)).size for key, (_, _, data) in found.items()}
    assert sizes == {"small": (64, 48), "wide": (64, 48), "tall": (19, 64), "turned": (32, 64)}
    assert {suffix for _, suffix, _ in found.values()} == {"jpg"}
    scaled = np.asarray(Image.open(io.BytesIO(found["wide"][2]))).astype(int)
    with Image.open(io.BytesIO(files["wide"])) as original:
        exact = np.asarray(original.resize((64, 48), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(scaled - exact).mean() < 12
