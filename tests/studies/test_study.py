"""Numbers of a study: coverage of intervals, ties, refused mixtures, tables in every form."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import norm

from geoclip.config import StudyCommandConfig
from geoclip.errors import DataError
from geoclip.evaluation.metrics import references
from geoclip.runs.run_dir import fingerprint_of
from geoclip.studies.results import gains, resampled, study_results
from geoclip.studies.tables import study_latex, study_markdown, study_summary, study_tables, write_tables
from geoclip.study import print_tables, run_folders

IMAGES = 200


def write_run(root: Path, variant: str, seed: int, error_km_N: Any, **changes: Any) -> Path:
    """A finished and evaluated run; `changes` by the file's name and key, as provenance__git_revision."""
    run = root / f"s-{variant}-{seed}{len(changes)}"
    (run / "eval").mkdir(parents=True, exist_ok=True)
    config = {
        "name": "s", "seed": seed, "data": {"name": "d", "root": str(root), "fraction": 1.0},
        "encoder": {"name": "e", "features": ""}, "location": {"name": variant, "sigmas": [1.0, 16.0]},
        "queue": {"size": 4}, "study": {"name": "s", "by": ["location"], "baseline": "base", "benchmarks": ["test"]},
    }  # fmt: skip
    choices = {"location": variant, "fidelity": "paper"}
    result = {
        "benchmark": "test", "protocol": "sphere", "tta": "single", "n": len(error_km_N), "gallery": "g",
        "gallery_size": 10, "gallery_sha256": "f", "git_revision": "abc", "ceiling_percent": {"25": 90.0},
        "by_continent": {},
    }  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "config": config,
        "provenance": {"git_revision": "abc", "machine": {}, "versions": {}, "python": "3", "choices": choices},
        "summary": {"step": 1, "samples_seen": 100, "files": {"shards": "x"}},
        "result": result,
    }
    evaluation = changes.pop("evaluation", "test")
    for key, value in changes.items():
        file, _, field = key.partition("__")
        files[file][field] = value
    (run / "config.yaml").write_text(yaml.safe_dump(files["config"]))
    for name in ("provenance", "summary"):
        (run / f"{name}.json").write_text(json.dumps(files[name]))
    (run / "eval" / f"{evaluation}.json").write_text(json.dumps(files["result"]))
    keys = [f"{number:04d}" for number in range(len(error_km_N))]
    zeros = np.zeros(len(error_km_N))
    table = {"key": keys, "lat": zeros, "lon": zeros, "distance_km": error_km_N, "ceiling_km": zeros}
    pd.DataFrame(table).to_csv(run / "eval" / f"{evaluation}.csv", index=False)
    return run


def errors(rng: np.random.Generator, share: float, n: int = IMAGES) -> Any:
    """Of which about this share is within 25 km."""
    return np.where(rng.random(n) < share, 10.0, 100.0)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    return [
        write_run(tmp_path, name, seed, errors(rng, share))
        for name, share in (("base", 0.3), ("better", 0.8))
        for seed in range(3)
    ]


def test_intervals_cover_the_true_gain_and_seldom_exclude_zero_without_one() -> None:
    """120 studies of three seeds; images and seeds vary, and the true gain is known."""
    rng, covered, wins = np.random.default_rng(1), 0, 0
    studies, n = 120, 100
    for study in range(studies):
        difficulty_N = rng.normal(size=n)  # of the images, the same for both variants
        gain = 0.5 if study % 2 else 0.0
        runs: list[dict[int, Any]] = []
        for shift in (0.0, gain):
            seeds = rng.normal(0, 0.2, 3)  # the effect of a seed on all images
            skill_SN = difficulty_N + shift + seeds[:, None] + rng.normal(0, 0.5, (3, n))
            errors_SN = np.where(skill_SN > 0, 10.0, 100.0)
            runs.append({seed: resampled(row, "sphere", study) for seed, row in enumerate(errors_SN)})
        found = gains(runs[0], runs[1], "sphere", study)["25"]
        spread = np.hypot(1, np.hypot(0.2, 0.5))  # of the sum of the three
        truth = 100 * (norm.cdf(gain / spread) - 0.5)
        covered += found["low"] <= truth <= found["high"]
        wins += found["excludes_zero"] and not gain
    assert covered / studies >= 0.93
    assert wins / (studies / 2) <= 0.07


def test_means_spread_and_a_real_gain(two: list[Path]) -> None:
    results = study_results(two)
    base, better = results["benchmarks"]["test"]["variants"]
    per_seed = better["metrics"]["25"]["per_seed"]
    assert better["metrics"]["25"]["mean"] == pytest.approx(np.mean(per_seed))
    assert better["metrics"]["25"]["sd"] == pytest.approx(np.std(per_seed, ddof=1))
    assert base["gain"] is None and better["gain"]["25"]["excludes_zero"]
    assert better["gain"]["25"]["low"] < 50 < better["gain"]["25"]["high"]
    assert not better["gain"]["1"]["excludes_zero"] and better["gain"]["1"]["value"] == 0
    assert study_results(two) == results
    share, low, high = better["gain"]["25"]["share"]
    assert share == pytest.approx(100 * better["metrics"]["25"]["mean"] / base["metrics"]["25"]["mean"])
    assert 100 < low < share < high and better["gain"]["1"]["share"] is None  # no share of 0


def test_only_a_significant_best_is_bold(two: list[Path]) -> None:
    results = study_results(two)
    first, second = study_tables(results, "test")
    bold = {head: [row[number].bold for row in first.rows] for number, head in enumerate(first.heads)}
    assert bold["< 25 km, %"][:2] == [False, True] and not any(bold["< 1 km, %"])
    assert bold["median km"][:2] == [False, True]  # lower is better
    assert second.heads[0] == "gain over base" and second.rows[0][0].text == "better"
    same = [run.rename(run.with_name(f"t{run.name}")) for run in two]
    for run in same:  # other names for the same errors
        (run / "eval" / "test.csv").write_bytes((same[0] / "eval" / "test.csv").read_bytes())
    tied = study_results(same)
    assert not any(cell.bold for table in study_tables(tied, "test") for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("changes", "kind", "key"),
    [
        ({"summary__files": {"shards": "y"}}, "data", "files.shards"),
        ({"result__gallery_sha256": "other"}, "gallery", "gallery_sha256"),
        ({"summary__samples_seen": 99}, "budget", "samples_seen"),
        ({"provenance__git_revision": "def"}, "revision", "revision of the training"),
        ({"result__git_revision": "def-dirty"}, "revision", "revision of the evaluation"),
    ],
)
def test_mixtures_are_refused_or_noted(
    two: list[Path], tmp_path: Path, changes: dict[str, Any], kind: str, key: str
) -> None:
    other = write_run(tmp_path, "other", 0, errors(np.random.default_rng(3), 0.5), **changes)
    with pytest.raises(DataError, match=rf"{two[0]}.*{other}.*{key}.*allow=\[{kind}\]"):
        study_results([*two, other])
    assert any(key in note for note in study_results([*two, other], allow=[kind])["notes"])


def test_runs_that_cannot_be_compared_are_named(two: list[Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    other = write_run(tmp_path, "better", 3, errors(rng, 0.5), config__queue={"size": 8})
    with pytest.raises(DataError, match=r"queue.size: 4 -> 8.*where="):
        study_results([*two, other])
    with pytest.raises(DataError, match=rf"{tmp_path}.* and {tmp_path}"):
        study_results([*two, write_run(tmp_path, "better", 0, errors(rng, 0.5), config__extra=None)])
    unfinished = write_run(tmp_path, "late", 0, errors(rng, 0.5))
    (unfinished / "summary.json").unlink()
    assert any(str(unfinished) in note for note in study_results([*two, unfinished])["notes"])
    (two[0] / "eval" / "test.json").unlink()
    with pytest.raises(DataError, match=rf"geoclip.evaluate checkpoint={two[0]} benchmark=test"):
        study_results(two)


def test_by_a_key_a_group_without_a_node_and_an_evaluations_field(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [
        write_run(tmp_path, f"r{size}", seed, errors(rng, 0.5), config__queue={"size": size},
                  config__location={"name": "base"}, provenance__choices={"fidelity": f"f{size}"})
        for size in (16, 4) for seed in (0, 1)
    ]  # fmt: skip
    swept = study_results(runs, by=["queue.size"], baseline="16")["benchmarks"]["test"]["variants"]
    assert [variant["label"] for variant in swept] == ["16", "4"]
    faults = study_results(runs, by=["fidelity"], baseline="f4")["benchmarks"]["test"]["variants"]
    assert [variant["label"] for variant in faults] == ["f4", "f16"]
    one = [write_run(tmp_path, "one", seed, errors(rng, 0.5)) for seed in (0, 1)]
    for run in one:
        crops = write_run(tmp_path, "crops", 0, errors(rng, 0.9), evaluation="test+ten_crop", result__tta="ten_crop")
        for path in (crops / "eval").iterdir():
            path.rename(run / "eval" / path.name)
    found = study_results(one, by=["eval.tta"], baseline="single")["benchmarks"]["test"]["variants"]
    assert [variant["label"] for variant in found] == ["single", "ten_crop"]
    with pytest.raises(DataError, match=r"eval.tta: ten_crop -> single"):
        study_results(one, by=["location"], baseline="one")


def test_a_study_of_no_key_is_one_variant_over_its_seeds(tmp_path: Path) -> None:
    study = {"name": "default", "by": [], "baseline": "", "benchmarks": ["test"]}
    rng = np.random.default_rng(0)
    runs = [write_run(tmp_path, "base", seed, errors(rng, 0.5), config__study=study) for seed in range(3)]
    results = study_results(runs)
    (variant,) = results["benchmarks"]["test"]["variants"]
    assert (variant["label"], variant["seeds"], variant["gain"]) == ("default", [0, 1, 2], None)
    measured = variant["metrics"]["25"]
    assert f"{measured['mean']:.1f} ± {measured['sd']:.1f}" in study_summary(results)
    other = write_run(tmp_path, "other", 3, errors(rng, 0.5), config__study=study)
    with pytest.raises(DataError, match=r"location.name: base -> other"):
        study_results([*runs, other])


def test_a_study_records_what_its_runs_were_configured_with(two: list[Path]) -> None:
    used = study_results(two)["configuration"]
    assert used["common"]["queue.size"] == 4 and used["common"]["study.by"] == ["location"]
    assert used["points"] == [
        {"location.name": name, "seed": seed} for name in ("base", "better") for seed in (0, 1, 2)
    ]
    assert study_results(two)["configuration_hash"] == fingerprint_of(used)
    assert not {key for key in used["common"] if "root" in key}  # paths of files change no result


def test_tables_in_every_form(two: list[Path], tmp_path: Path) -> None:
    results = study_results(two)
    variant = results["benchmarks"]["test"]["variants"][1]
    variant["label"] = "50 % & a_b | c"
    latex = study_latex(results, "test")
    assert r"50 \% \& a\_b | c" in latex and latex.count(r"\toprule") == 2 and r"\textbf{" in latex
    assert r"50 % &amp; a_b \| c" in study_markdown(results, "test")
    write_tables(results, tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    (row,) = [row for row in rows if row["variant"] == variant["label"] and row["metric"] == "25"]
    assert float(row["mean"]) == variant["metrics"]["25"]["mean"]
    assert float(row["low"]) == variant["gain"]["25"]["low"] and row["excludes_zero"] == "True"


def test_published_results_are_in_the_table(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, name, 0, [10.0, 100.0], evaluation="yfcc4k", result__benchmark="yfcc4k")
        for name in ("base", "better")
    ]
    results = study_results(runs, benchmarks=["yfcc4k"], with_references=True)
    published = study_markdown(results, "yfcc4k")
    assert "| *GeoCLIP (" in published and "9.6" in published
    with pytest.raises(DataError, match="test"):
        references("test")


def test_tables_of_any_runs_are_printed_and_written(two: list[Path], tmp_path: Path) -> None:
    spaced = write_run(tmp_path / "with space", "base", 9, [1.0])
    assert run_folders([str(two[0]), str(tmp_path / "with*" / "*")]) == sorted([two[0], spaced])
    assert run_folders(str(tmp_path / "s-b*")) == sorted(two)
    config = StudyCommandConfig(
        runs=str(tmp_path / "s-b*"), where=["seed=1"], output=str(tmp_path / "tables"), allow=["revision"]
    )
    results = print_tables(config)
    assert [variant["seeds"] for variant in results["benchmarks"]["test"]["variants"]] == [[1], [1]]
    read = json.loads((tmp_path / "tables" / "results.json").read_text())
    assert read == json.loads(json.dumps(results))
    assert (tmp_path / "tables" / "test.md").read_text() == study_markdown(results, "test")
