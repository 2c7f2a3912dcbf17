"""Every published layout of a benchmark is found, names are never confused, and corrupt files are reported."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geoclip.data.benchmarks import list_photos, photo_batches, read_features, read_photos
from geoclip.data.picture_sources import MISSING
from geoclip.data.transforms import Preprocessing
from geoclip.errors import DataError


def picture(path: Path, color: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, {".jpg": "JPEG", ".JPG": "JPEG"}.get(path.suffix))
    return path


def table(root: Path, text: str, name: str = "metadata.csv") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("csv", "photo"),
    [
        ("IMG_FILE,LAT,LON\na.jpg,1.5,2.5\n", "a.jpg"),  # the authors' loader
        ("IMG_ID,AUTHOR,LAT,LON\n1_78841376@N00.jpg,0,1.5,2.5\n", "1_78841376@N00.jpg"),  # Im2GPS3k
        ("name,AUTHOR,lat,lon,license\n10201275523.jpg,0,1.5,2.5,CC\n", "images/10201275523.jpg"),  # YFCC4k
        ("id,latitude,longitude\n0012345,1.5,2.5\n", "images/0012345.jpg"),  # the Lightning re-implementation
        ("IMG_ID,LAT,LON\n45/77/3228511372.jpg,1.5,2.5\n", "45/77/3228511372.jpg"),  # MP16
        ("IMG_ID,LAT,LON\n45/77/3228511372.jpg,1.5,2.5\n", "images/45/77/3228511372.jpg"),
        ("IMG_ID,LAT,LON\n45/77/3228511372.jpg,1.5,2.5\n", "45_77_3228511372.jpg"),  # some archives
        ("IMG_ID,LAT,LON\n45/77/3228511372.jpg,1.5,2.5\n", "images/45_77_3228511372.jpg"),
        ("IMG_ID,LAT,LON\n45_77_3228511372.jpg,1.5,2.5\n", "images/45/77/3228511372.jpg"),
        ("IMG_ID,LAT,LON\n45/77/3228511372.jpg,1.5,2.5\n", "images/3228511372.jpg"),
        ("IMG_ID,LAT,LON\n45/77/3228511372,1.5,2.5\n", "45/77/3228511372.png"),
    ],
)
def test_every_published_layout_is_found(tmp_path: Path, csv: str, photo: str) -> None:
    table(tmp_path, csv)
    path = picture(tmp_path / photo)
    photos, missing = read_photos(tmp_path)
    assert [(found.path, found.gps_deg) for found in photos] == [(path, (1.5, 2.5))]
    assert photos[0].key == csv.splitlines()[1].split(",")[0]
    assert missing == []


def test_linked_folders_are_searched_and_loops_of_links_end(tmp_path: Path) -> None:
    path = picture(tmp_path / "elsewhere" / "a.jpg")
    table(tmp_path / "root", "IMG_FILE,LAT,LON\na.jpg,1,2\n")
    (tmp_path / "root" / "images").symlink_to(path.parent)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "root")
    photos, _ = read_photos(tmp_path / "root")
    assert [photo.path.resolve() for photo in photos] == [path]


def test_a_missing_photograph_is_reported_and_gets_no_picture_of_the_same_name(tmp_path: Path) -> None:
    table(tmp_path, "IMG_ID,LAT,LON\nrome/1.jpg,41.9,12.5\nparis/1.jpg,48.9,2.4\nb.jpg,5,6\n")
    paris, other = picture(tmp_path / "paris" / "1.jpg"), picture(tmp_path / "b.jpg")
    photos, missing = read_photos(tmp_path)
    assert [(photo.path, photo.gps_deg) for photo in photos] == [(paris, (48.9, 2.4)), (other, (5, 6))]
    assert [(skip.key, skip.reason) for skip in missing] == [("rome/1.jpg", MISSING)]


def test_a_name_that_fits_two_photographs_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "IMG_ID,LAT,LON\n1.jpg,41.9,12.5\n")
    picture(tmp_path / "large" / "1.jpg"), picture(tmp_path / "small" / "1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg .*large/1\.jpg .*small/1\.jpg.* benchmark\.root"):
        read_photos(tmp_path)
    photos, _ = read_photos(tmp_path / "small", str(tmp_path / "metadata.csv"))
    assert photos[0].path == tmp_path / "small" / "1.jpg"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("IMG_ID,LAT,LON\na.jpg,1,2\n", r"metadata\.csv .*a\.jpg"),  # no photograph
        ("LAT,LON\n1,2\n", "IMG_FILE, IMG_ID, file_name, name or id"),  # no names
        ("IMG_ID,LAT,LON\na.jpg,1,2\nb.jpg,91,2\n", r"metadata\.csv, line 3: LAT='91'"),
    ],
)
def test_a_table_that_cannot_be_used_is_rejected(tmp_path: Path, text: str, named: str) -> None:
    table(tmp_path, text)
    with pytest.raises(DataError, match=named):
        read_photos(tmp_path)


def test_the_csv_must_be_named_unless_there_is_exactly_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"benchmark\.metadata"):
        read_photos(tmp_path)
    table(tmp_path, "IMG_ID,LAT,LON\na.jpg,1,2\n", "one.csv")
    table(tmp_path, "IMG_ID,LAT,LON\na.jpg,3,4\n", "two.csv")
    with pytest.raises(DataError, match=r"one\.csv, two\.csv"):
        read_photos(tmp_path)
    assert read_photos(tmp_path, "two.csv")[0][0].gps_deg == (3, 4)


def test_corrupt_photographs_are_omitted_and_reported(tmp_path: Path) -> None:
    table(tmp_path, "IMG_ID,LAT,LON\na.jpg,1,2\ncut.jpg,3,4\nempty.jpg,5,6\ntext.jpg,7,8\nb.jpg,9,10\n")
    picture(tmp_path / "a.jpg", (255, 0, 0)), picture(tmp_path / "b.jpg", (0, 0, 255))
    complete = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(complete, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(complete.getvalue()[:900])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("This photo is no longer available")
    photos, missing = read_photos(tmp_path)
    batches = list(photo_batches(photos, Preprocessing(image_px=16), batch_size=2))
    assert missing == []
    assert [key for batch in batches for key in batch.keys] == ["a.jpg", "b.jpg"]
    assert torch.cat([batch.gps_deg_B2 for batch in batches]).tolist() == [[1, 2], [9, 10]]
    skipped = [skip for batch in batches for skip in batch.skipped]
    assert [skip.key for skip in skipped] == ["cut.jpg", "empty.jpg", "text.jpg"]
    reasons = ["truncated picture", "empty picture", "unreadable picture (UnidentifiedImageError)"]
    assert [skip.reason for skip in skipped] == reasons
    red, blue = torch.cat([batch.images for batch in batches])
    assert red[0].float().mean() > 250 and blue[2].float().mean() > 250


def test_pictures_of_any_shape_and_mode_become_squares_of_bytes(tmp_path: Path) -> None:
    for number, (mode, size) in enumerate([("RGB", (90, 20)), ("L", (20, 90)), ("RGBA", (33, 33)), ("P", (7, 5))]):
        Image.new(mode, size).save(tmp_path / f"{number}.png")
    (batch,) = photo_batches(list_photos(tmp_path)[0], Preprocessing(image_px=32), batch_size=8)
    assert batch.images.shape == (4, 3, 32, 32) and batch.images.dtype == torch.uint8
    assert batch.gps_deg_B2.isnan().all()  # unknown


def test_photographs_are_upright_by_their_exif_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 32, 16))  # white above, until it is turned by a quarter
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    (batch,) = photo_batches(list_photos(tmp_path)[0], Preprocessing(image_px=32), batch_size=1)
    left, right = batch.images[0].float().mean(dim=(0, 1)).view(2, 16).mean(dim=1)
    assert left < 10 and right > 245


def test_a_folder_gives_its_photographs_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deeper/c.webp", ".thumbnail.jpg", ".cache/d.jpg"):
        picture(tmp_path / name)
    (tmp_path / "a.json").write_text("{}")
    assert [photo.key for photo in list_photos(tmp_path)[0]] == ["a.png", "b.JPG", "deeper/c.webp"]
    assert [photo.key for photo in list_photos(tmp_path / "b.JPG")[0]] == ["b.JPG"]


@pytest.mark.parametrize("name", ["", "gone"])
def test_a_folder_without_photographs_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=str(tmp_path / name)):
        list_photos(tmp_path / name)


def features(**changes: Any) -> dict[str, Any]:
    arrays = {
        "features": np.arange(15, dtype=np.float16).reshape(3, 5),
        "lat": np.array([1.0, 2.0, 3.0]),
        "lon": np.array([4.0, 5.0, 6.0]),
        "key": np.array(["a", "b", "c"]),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def test_precomputed_features_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **features())
    rows, gps_deg, keys = read_features(tmp_path / "f.npz", 5)
    assert torch.equal(rows, torch.arange(15.0).reshape(3, 5))
    assert gps_deg.tolist() == [[1, 4], [2, 5], [3, 6]] and gps_deg.dtype == torch.float64
    assert keys == ["a", "b", "c"]
    np.savez(tmp_path / "unnamed.npz", **features(key=None))
    assert read_features(tmp_path / "unnamed.npz", 5)[2] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lat": None, "lon": None}, "lat, lon.* features, key"),
        ({"features": np.zeros((3, 6))}, r"\(3, 6\).* \(N, 5\)"),
        ({"features": np.zeros(5)}, r"\(5,\).* \(N, 5\)"),
        ({"features": np.zeros((0, 5))}, r"\(0, 5\)"),
        ({"lat": np.zeros(2)}, r"3 .*lat .*\(2,\)"),
        ({"lon": np.zeros((3, 1))}, r"3 .*lon .*\(3, 1\)"),
        ({"key": np.array(["a"])}, r"3 .*key .*\(1,\)"),
        ({"features": np.array([[0.0] * 5, [np.nan] * 5, [0.0] * 5])}, "row 1"),
        ({"features": np.full((3, 5), 1e300)}, "row 0"),
        ({"lat": np.array([0.0, 0.0, -90.5])}, "row 2"),
        ({"lon": np.array([0.0, np.nan, 0.0])}, "row 1"),
        ({"lat": np.array(["north", "0", "0"])}, "lat "),
        ({"key": np.array([{}, {}, {}], dtype=object)}, ""),
    ],
)
def test_invalid_features_are_rejected(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    np.savez(tmp_path / "f.npz", **features(**changes))
    with pytest.raises(DataError, match=rf"image_features=.*f\.npz.*{named}"):
        read_features(tmp_path / "f.npz", 5)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_other_files_are_rejected_as_features(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.npz"):
        read_features(tmp_path / "f.npz", 5)
    np.save(tmp_path / "f.npy", np.zeros((3, 5)))
    with pytest.raises(DataError, match=r"f\.npy"):
        read_features(tmp_path / "f.npy", 5)
