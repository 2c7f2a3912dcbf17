"""Published benchmarks by name: their metadata read through the configs, and their known ceilings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from geoclip.config import EvaluateConfig, GalleryBuildConfig, evaluate_problems, gallery_build_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.data.assets import asset_path
from geoclip.data.benchmarks import metadata_file, read_photos
from geoclip.data.tables import read_coordinates
from geoclip.errors import DataError
from geoclip.gallery import build_gallery_file

PUBLISHED = {"im2gps": 237, "im2gps3k": 2997, "yfcc4k": 4536, "yfcc26k": 25600, "gws15k": 14955}
# Share of test locations within 1, 25, 200, 750, 2500 km of the released gallery; median km; verbatim in it.
CEILINGS = {"im2gps3k": ((63.5, 95.2, 99.8, 100, 100), 0.46, 7), "yfcc4k": ((62.4, 97.0, 99.9, 99.98, 100), 0.39, 424)}


@pytest.fixture
def metadata(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the ground truth, and the environment variables of the configs."""
    folder = repository.parent / "shared" / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks' ground truth is not beside this checkout")
    for name in CEILINGS:
        monkeypatch.setenv(f"{name.upper()}_DIR", str(folder))
        monkeypatch.setenv(f"{name.upper()}_CSV", f"{name}.csv")
    return folder


def evaluate_config(*overrides: str) -> EvaluateConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("evaluate", list(overrides)), EvaluateConfig, lambda _: [])


def gallery_config(*overrides: str) -> GalleryBuildConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("gallery", list(overrides)), GalleryBuildConfig, gallery_build_problems)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_benchmark_has_its_source_and_size(name: str) -> None:
    config = evaluate_config(f"benchmark={name}", "benchmark.root=", "benchmark.built=")
    assert config.benchmark.published_n == PUBLISHED[name]
    (problem,) = evaluate_problems(config)
    assert f"set {name.upper()}_DIR=FOLDER" in problem and f"{PUBLISHED[name]:,}" in problem
    assert "CVPR" in problem or "ICCV" in problem or "ECCV" in problem


@pytest.mark.parametrize("name", CEILINGS)
def test_the_metadata_have_the_published_rows(name: str, metadata: Path) -> None:
    benchmark = evaluate_config(f"benchmark={name}").benchmark
    rows = read_coordinates(metadata_file(Path(benchmark.root), benchmark.metadata), "benchmark")
    assert len(rows) == benchmark.published_n == rows["key"].nunique()
    with pytest.raises(DataError, match=rf" {len(rows)} "):  # no photographs here
        read_photos(Path(benchmark.root), benchmark.metadata)


def test_the_released_gallery_has_the_ceilings_that_are_known(metadata: Path, tmp_path: Path) -> None:
    path = build_gallery_file(gallery_config("against=[yfcc4k,im2gps3k]", f"output={tmp_path / 'released.csv'}"))
    made = json.loads(path.with_suffix(".json").read_text())
    assert made["counts"] == {"read": 100_000, "distinct": 94_123}
    for name, (percent, median_km, verbatim) in CEILINGS.items():
        found = made["test_sets"][name]
        shares = [round(share, 2 if share > 99.95 else 1) for share in found["ceiling_percent"].values()]
        assert shares == list(percent)
        assert round(found["median_km"], 2) == median_km
        assert (found["n"], found["verbatim_in_gallery"]) == (PUBLISHED[name], verbatim)


def test_a_gallery_can_exclude_the_coordinates_of_benchmarks(metadata: Path, tmp_path: Path) -> None:
    config = gallery_config("exclude=[yfcc4k,im2gps3k]", f"output={tmp_path / 'honest.csv'}", "size=20000")
    made = json.loads(build_gallery_file(config).with_suffix(".json").read_text())
    csvs = [read_coordinates(metadata / f"{name}.csv", name)[["lat", "lon"]] for name in CEILINGS]
    released = read_coordinates(asset_path("gallery_100k.csv"), "gallery")[["lat", "lon"]]
    of_tests = {tuple(pair) for csv in csvs for pair in csv.to_numpy().tolist()}
    leaked = of_tests & {tuple(pair) for pair in released.to_numpy().tolist()}
    assert made["counts"]["distinct"] - made["counts"]["not excluded"] == len(leaked) > 300
    assert [made["test_sets"][name]["verbatim_in_gallery"] for name in CEILINGS] == [0, 0]
    assert made["places"] == 20_000


def test_the_published_table_of_gws15k_is_read(tmp_path: Path) -> None:
    (tmp_path / "gws15k.csv").write_text("path,lat,lon\ngsv_0.jpg,31.9072094,102.2125397\n")
    rows = read_coordinates(metadata_file(tmp_path), "benchmark")
    assert rows[["key", "lat", "lon"]].to_numpy().tolist() == [["gsv_0.jpg", 31.9072094, 102.2125397]]
