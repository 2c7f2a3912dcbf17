"""`python -m geoclip.evaluate`: every source of models, images and locations."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir

from geoclip.config import (
    BenchmarkConfig,
    BenchmarkKind,
    EvaluateConfig,
    GalleryConfig,
    GalleryKind,
    Protocol,
    Tta,
    evaluate_problems,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.data.shard_index import open_index
from geoclip.data.shards import read_shards, take_fraction
from geoclip.errors import AssetError, CheckpointError, DataError
from geoclip.evaluate import evaluate
from geoclip.evaluation.details import reliability
from geoclip.evaluation.metrics import distance_km, nearest_location_km
from geoclip.pretrained.resolver import resolve_checkpoint

Evaluate = Callable[..., Any]


@pytest.fixture
def run_evaluate(tiny_run: Any, tiny_source: dict[str, Any], photo_folder: Path) -> Evaluate:
    """Evaluate the tiny run on the photographs, with changed keys; returns JSON, CSV and path."""
    photos = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder), published_n=7)

    def run(**changes: Any) -> tuple[dict[str, Any], pd.DataFrame, Path]:
        runs_dir = str(tiny_run.folder.parent)
        config = EvaluateConfig(**(tiny_source | {"runs_dir": runs_dir, "benchmark": photos} | changes))
        assert evaluate_problems(config) == []
        path = evaluate(config)
        return json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"), dtype={"key": str}), path

    return run


def test_a_split_of_shards(
    run_evaluate: Evaluate, tiny_run: Any, tiny_shards: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tiny_shards([5, 4], split="test")
    benchmark = BenchmarkConfig(name="test", kind=BenchmarkKind.shards, root=str(shards.root), split="test")
    row, table, path = run_evaluate(benchmark=benchmark)
    assert path == tiny_run.folder / "eval" / "test.json"
    assert row["n"] == 9
    assert table["key"].tolist() == list(shards.gps_deg)
    assert table[["lat", "lon"]].to_numpy() == pytest.approx(np.array(list(shards.gps_deg.values())))
    places = {tuple(place) for place in tiny_run.gallery_deg_G2}
    assert {tuple(place) for place in table[["predicted_lat", "predicted_lon"]].to_numpy()} <= places
    assert row["checkpoint_sha256"] == hashlib.sha256(tiny_run.best.read_bytes()).hexdigest()
    assert (row["gallery"], row["gallery_size"]) == ("tiny", 60)
    assert row["git_revision"]
    assert f"{row['accuracy_percent']['2500']['value']:.1f}" in capsys.readouterr().out


def test_the_json_can_be_computed_from_the_csv(
    run_evaluate: Evaluate, tiny_run: Any, tiny_shards: Callable[..., Any]
) -> None:
    shards = tiny_shards([40], split="test")
    benchmark = BenchmarkConfig(name="test", kind=BenchmarkKind.shards, root=str(shards.root), split="test")
    train_csv = tiny_run.folder.parent / "train.csv"
    pd.DataFrame(list(shards.gps_deg.values())[::3], columns=["LAT", "LON"]).to_csv(train_csv, index=False)
    row, _, path = run_evaluate(benchmark=benchmark, train_places=str(train_csv), protocol=Protocol.released)
    table = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    assert row["protocol"] == "released" and row["training_locations"] == 14
    truth, guess = table[["lat", "lon"]].to_numpy(), table[["predicted_lat", "predicted_lon"]].to_numpy()
    assert table["distance_km"].to_numpy() == pytest.approx(distance_km(guess, truth, "released"), abs=1e-6)
    assert (table["nearest_train_km"] == 0).sum() == 14 == row["by_training_km"]["0-1"]["n"]
    on_land = table[table["country"] != ""]
    assert 0 < len(on_land) < 40
    for region in ("country", "continent"):
        share = 100 * (on_land[region] == on_land[f"predicted_{region}"]).mean()
        assert (row[region]["n"], row[region]["percent"]["value"]) == (len(on_land), pytest.approx(share))
    for name, group in on_land.groupby("continent"):
        found = row["by_continent"][name]
        assert (found["n"], found["median_km"]["value"]) == (len(group), pytest.approx(group["distance_km"].median()))
        assert found["accuracy_percent"]["2500"]["value"] == 100 * (group["distance_km"] <= 2500).mean()
    for rank, column in (("1", "distance_km"), ("5", "best_of_5_km"), ("10", "best_of_10_km")):
        share = row["recall_percent"][rank]["2500"]["value"]
        assert share == pytest.approx(100 * (table[column] <= 2500).mean())
    assert row["nll_nats"]["value"] == pytest.approx(table["nll_nats"].mean())
    for km in (25, 200):
        again = reliability(table[f"probability_{km}_km"].to_numpy(), (table["distance_km"] <= km).to_numpy())
        assert row["calibration"][str(km)] == json.loads(json.dumps(asdict(again)))
    assert (table["probability"] <= table["probability_25_km"]).all()


def test_the_training_locations_are_those_of_the_runs_fraction(
    run_evaluate: Evaluate, tiny_run: Any, tiny_shards: Callable[..., Any]
) -> None:
    shards = tiny_shards([6, 6, 6, 6])
    config = {"seed": 3, "encoder": {"features": ""}}
    config["data"] = {"root": str(shards.root), "train": "train", "fraction": 0.5}
    row, *_ = run_evaluate()
    assert "by_training_km" not in row
    (tiny_run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    row, table, _ = run_evaluate()
    taken = take_fraction(read_shards(str(shards.root), "train"), 0.5, 3)
    places = np.concatenate([open_index(span.path).gps_deg_N2[: span.stop] for span in taken])
    assert row["training_locations"] == len(places) == 12
    expected = nearest_location_km(table[["lat", "lon"]].to_numpy(), places)
    assert table["nearest_train_km"].to_numpy() == pytest.approx(expected, abs=1e-5)
    shutil.rmtree(shards.root)
    row, table, _ = run_evaluate()
    assert "by_training_km" not in row and "nearest_train_km" not in table


def test_a_missing_file_of_training_locations_is_refused(own_gallery: GalleryConfig, tmp_path: Path) -> None:
    benchmark = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(tmp_path))
    config = EvaluateConfig(checkpoint=str(tmp_path), gallery=own_gallery, benchmark=benchmark, train_places="no.csv")
    (problem,) = evaluate_problems(config)
    assert problem.startswith("train_places=no.csv:")


def test_a_benchmark_is_read_from_the_shards_built_of_it(
    run_evaluate: Evaluate, tiny_shards: Callable[..., Any]
) -> None:
    shards = tiny_shards([5, 4], split="test")
    (shards.root / "test" / "index.json").write_text(
        json.dumps({"shards": [{"name": path.name, "samples": 1} for path in shards.paths("test")]})
    )
    benchmark = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, built=str(shards.root), published_n=10)
    row, *_ = run_evaluate(benchmark=benchmark)
    assert row["n"] == 9 and row["published_n"] == 10
    (shards.root / "test" / "index.json").unlink()
    (problem,) = evaluate_problems(
        EvaluateConfig(benchmark=benchmark, gallery=GalleryConfig(name="own", kind=GalleryKind.own))
    )
    assert problem.startswith("benchmark=photos:")


def test_missing_and_broken_photographs_are_counted_and_named(run_evaluate: Evaluate, said: Callable[[], str]) -> None:
    row, table, _ = run_evaluate()
    assert row["n"] == len(table) == 5
    assert table["key"].tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert row["missing"] == 1 and sum(row["skipped"].values()) == 1
    assert "broken.jpg" in said() and "missing.jpg" in said()
    assert "photos as published has 7" in said()


def test_the_same_evaluation_gives_the_same_files(run_evaluate: Evaluate) -> None:
    *_, path = run_evaluate()
    first = path.read_text(), path.with_suffix(".csv").read_text()
    run_evaluate(batch_size=2)
    assert (path.read_text(), path.with_suffix(".csv").read_text()) == first
    reseeded, *_ = run_evaluate(seed=1)
    assert reseeded["geoscore"] == json.loads(first[0])["geoscore"]
    assert reseeded["geoscore_interval"] != json.loads(first[0])["geoscore_interval"]


def test_features_need_no_photographs(run_evaluate: Evaluate, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "features": rng.normal(size=(12, 16)),
        "lat": rng.uniform(-80, 80, 12),
        "lon": rng.uniform(-180, 180, 12),
    }
    np.savez(tmp_path / "clip.npz", **arrays, key=np.array([f"photo {number}" for number in range(12)]))
    nowhere = BenchmarkConfig(name="yfcc4k", kind=BenchmarkKind.photos, root="", variable="YFCC4K_DIR")
    row, table, _ = run_evaluate(benchmark=nowhere, image_features=str(tmp_path / "clip.npz"))
    assert (row["benchmark"], row["n"]) == ("yfcc4k", 12)
    assert table["key"].tolist() == [f"photo {number}" for number in range(12)]
    np.savez(tmp_path / "wide.npz", **(arrays | {"features": np.zeros((12, 768))}))
    with pytest.raises(DataError, match=r"this model takes \(N, 16\)"):
        run_evaluate(benchmark=nowhere, image_features=str(tmp_path / "wide.npz"))


def test_the_released_model_needs_no_backbone_for_features(
    run_evaluate: Evaluate, tiny_run: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", features=rng.normal(size=(6, 768)), lat=np.ones(6), lon=np.zeros(6))
    row, _, path = run_evaluate(
        checkpoint="official",
        image_features=str(tmp_path / "f.npz"),
        gallery=GalleryConfig(name="csv", path=str(tiny_run.gallery_csv)),
    )
    assert path == tiny_run.folder.parent / "official" / "eval" / f"photos+{tiny_run.gallery_csv.stem}.json"
    assert (row["model"], row["gallery"], row["n"]) == ("official", "csv", 6)
    assert len(row["checkpoint_sha256"]) == 64


def test_a_missing_backbone_is_one_sentence_with_its_key(run_evaluate: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"no-clip.*backbone") as found:
        run_evaluate(checkpoint="official", backbone=str(tmp_path / "no-clip"))
    assert len(str(found.value).splitlines()) == 1


def test_latest_is_the_newest_run_and_the_last_checkpoint_replaces_a_missing_best(tiny_run: Any) -> None:
    runs, newer = tiny_run.folder.parent, tiny_run.folder.with_name("tiny-2")
    shutil.copytree(tiny_run.folder, newer)
    for number, run in enumerate((tiny_run.folder, newer)):
        (run / "checkpoints" / "step-00000001.safetensors").write_bytes(tiny_run.best.read_bytes())
        os.utime(run / "checkpoints" / "step-00000001.safetensors", (number, number))
    assert resolve_checkpoint("latest", str(runs)).files == (newer / "checkpoints" / "best.safetensors",)
    tiny_run.best.unlink()
    assert resolve_checkpoint(str(tiny_run.folder)).files[0].name == "step-00000001.safetensors"
    (runs / "empty" / "runs").mkdir(parents=True)
    for checkpoint in (str(runs / "empty"), "latest"):
        with pytest.raises(CheckpointError, match="empty"):
            resolve_checkpoint(checkpoint, str(runs / "empty" / "runs"))


def test_a_gallery_with_the_test_locations_causes_a_warning(
    run_evaluate: Evaluate, photo_folder: Path, said: Callable[[], str]
) -> None:
    with_answers = GalleryConfig(name="csv", path=str(photo_folder / "metadata.csv"))
    own, *_ = run_evaluate()
    row, table, path = run_evaluate(gallery=with_answers)
    assert row["gallery_sha256"] != own["gallery_sha256"] and path.name == "photos+metadata.json"
    assert (row["gallery"], row["gallery_size"], row["verbatim_in_gallery"]) == ("csv", 7, 5)
    known = pd.read_csv(photo_folder / "metadata.csv")[["LAT", "LON"]].to_numpy().tolist()
    assert all(guess in known for guess in table[["predicted_lat", "predicted_lon"]].to_numpy().tolist())
    assert "5 of 5" in said()


@pytest.mark.parametrize(("benchmark", "variable"), [("yfcc4k", "YFCC4K_DIR"), ("im2gps3k", "IM2GPS3K_DIR")])
def test_without_photographs_the_problem_names_variable_and_key(benchmark: str, variable: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("evaluate", ["checkpoint=official", f"benchmark={benchmark}"])
    (problem,) = evaluate_problems(typed(cfg, EvaluateConfig, lambda _: []))
    assert problem.startswith(f"benchmark={benchmark}:") and variable in problem and "benchmark.root" in problem


def test_other_settings_have_their_own_files(run_evaluate: Evaluate, tiny_run: Any) -> None:
    usual = run_evaluate()[2]
    other = run_evaluate(tta=Tta.five_crop, protocol=Protocol.released)[2]
    assert (usual.name, other.name) == ("photos.json", "photos+five_crop+released_protocol.json")
    assert json.loads(usual.read_text())["tta"] == "single" and other.with_suffix(".csv").is_file()
