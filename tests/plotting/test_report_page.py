"""The report has the values of the run's files, names what is missing, and needs no network."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from geoclip.errors import DataError
from geoclip.plotting.report import write_report

BLACK = np.zeros((90, 180, 3), dtype=np.uint8)


def config(root: Path) -> dict[str, Any]:
    return {
        "name": "demo",
        "seed": 7,
        "data": {"name": "bluemarble", "root": str(root), "fraction": 0.2},
        "encoder": {"name": "resnet_tiny", "image_px": 48},
        "location": {"sigmas": [1.0, 16.0, 256.0], "frequencies": 128},
        "queue": {"size": 1024, "batch_noise_m": 150.0, "queue_noise_m": 1000.0},
        "optim": {"batch_size": 512, "kind": "adamw", "lr": 0.001, "schedule": "cosine"},
        "gallery": {"name": "bluemarble"},
    }


def result(benchmark: str, gallery: str, **more: Any) -> dict[str, Any]:
    shares = {"1": 1.25, "25": 31.0, "200": 81.5, "750": 92.75, "2500": 97.0}
    return {
        "benchmark": benchmark, "n": 40, "median_km": 51.5, "mean_km": 300.0, "geoscore": 4444.0,
        "accuracy_percent": {km: {"value": v, "low": v - 1, "high": v + 1} for km, v in shares.items()},
        "ceiling_percent": dict.fromkeys(shares, 100.0), "gallery": gallery, "gallery_size": 24_000,
        "verbatim_in_gallery": 0, **more,
    }  # fmt: skip


def make_run(parent: Path) -> Path:
    """The folder of a run: trained for 2 s, evaluated twice, one picture predicted."""
    folder, root = parent / "runs" / "demo-0123abcd", parent / "data"
    (folder / "eval").mkdir(parents=True)
    (folder / "predictions").mkdir()
    root.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config(root)))
    provenance = {
        "command": "python -m geoclip.train data.fraction=0.2",
        "git_revision": "0123456789ab",
        "python": "3.12.1",
        "versions": {"torch": "2.13.0", "transformers": "5.0.0"},
        "machine": {"processor": "a <fast> one", "cores": 2, "gpu": "none", "world_size": 1},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    row = {"kind": "train", "loss": 3.0, "in_batch_recall": 0.2, "lr": 1e-3, "logit_scale": 20.0}
    rows = [{**row, "step": step, "samples": 512 * step, "samples_per_s": 512.0} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    rng = np.random.default_rng(0)
    for benchmark in ("yfcc4k", "test"):
        lat, lon, miss_deg = rng.uniform(-50, 80, 40), rng.uniform(-170, 170, 40), rng.exponential(1, 40)
        miss = {"predicted_lat": lat + miss_deg, "predicted_lon": lon, "distance_km": 111.2 * miss_deg}
        table = pd.DataFrame({"key": [str(n) for n in range(40)], "lat": lat, "lon": lon, **miss, "score": 0.5})
        table.to_csv(folder / "eval" / f"{benchmark}.csv", index=False)
    (folder / "eval" / "test.json").write_text(json.dumps(result("test", "bluemarble")))
    other = result("yfcc4k", "released_100k", verbatim_in_gallery=4, published_n=4536)
    (folder / "eval" / "yfcc4k.json").write_text(json.dumps(other))
    for picture in (root / "distribution.png", folder / "predictions" / "photo.png"):
        Image.new("RGB", (40, 20), (10, 20, 30)).save(picture)
    (folder / "predictions" / "photo.html").write_text("<p>a map</p>")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a complete run."""
    return write_report(make_run(tmp_path_factory.mktemp("report")), background=BLACK)


def text_of(page: Path) -> str:
    """The page without tags and styles."""
    body = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


def test_the_report_has_the_values_of_the_files_and_their_commands(page: Path) -> None:
    text, run = text_of(page), page.parent.as_posix()
    values = (
        "demo-0123abcd", "bluemarble, 20 %", "σ = 1, 16, 256; 128", "1,024 coordinates", "1,024 in 2 steps",
        "training time 2 s", "a <fast> one, 2 cores, no GPU, 1 process", "0123456789ab", "81.5 80.5–82.5", "51.5 km",
        "4,444", "4 of 40 coordinates of yfcc4k", "40 images here and 4,536",
        "python -m geoclip.train data.fraction=0.2",
        f"python -m geoclip.evaluate checkpoint={run} benchmark=test ",
        f"checkpoint={run} benchmark=yfcc4k gallery=released_100k",
        f"python -m geoclip.report run={run}",
    )  # fmt: skip
    assert [value for value in values if value not in text] == []
    assert text.index("evaluate on test") < text.index("evaluate on yfcc4k"), "the run's own test is first"
    assert 'class="missing"' not in page.read_text(encoding="utf-8")


def test_the_report_contains_its_pictures_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    loaded = re.findall(r'\b(?:src|srcset|data|poster)="([^"]{0,40})', text)
    assert len(loaded) == 6, "two charts, two maps of predictions, one prediction, the distribution"
    assert all(address.startswith("data:image/") for address in loaded)
    assert re.findall(r'href="([^"]*)"', text) == ["predictions/photo.html"]
    assert "<script" not in text and "<link" not in text and "default-src 'none'" in unescape(text)
    figures = {path.name for path in (page.parent / "figures").iterdir()}
    assert figures == {"training.png", "errors.png", "predictions_test.png", "predictions_yfcc4k.png"}


def test_the_command_of_everything_missing_is_shown(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "demo-1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config(tmp_path / "nowhere")))
    page = write_report(run, background=BLACK).read_text(encoding="utf-8")
    assert [unescape(command) for command in re.findall(r'class="missing">[^<]*<code>([^<]*)</code>', page)] == [
        f"python -m geoclip.evaluate checkpoint={run.as_posix()} benchmark=test",
        f"python -m geoclip.evaluate checkpoint={run.as_posix()} benchmark=test",
        f"python -m geoclip.predict checkpoint={run.as_posix()} image=FILE_OR_FOLDER",
        "python -m geoclip.train",
        "python -m geoclip.shards source=bluemarble",
    ]
    assert not (run / "figures").exists()


def test_results_without_a_run_are_reported_too(run: Path) -> None:
    """The released weights have results and no run."""
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "eval/test.csv", "eval/yfcc4k.csv"):
        (run / name).unlink()
    assert "81.5 80.5–82.5" in text_of(write_report(run, background=BLACK))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        write_report(tmp_path / "nothing", background=BLACK)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("eval/test.json", '{"n": 3', "test.json"),
        ("eval/test.json", '{"n": 3}', "test.json"),
        ("eval/test.csv", "key,lat,lon\na,1,2\n", "test.csv.*predicted_lat"),
        ("eval/test.csv", "lat,lon,predicted_lat,predicted_lon,distance_km\n1,2,3,4,nan\n", "'test'"),
        ("config.yaml", "a: [1", "config.yaml"),
        ("provenance.json", "{", "provenance.json"),
    ],
)
def test_a_corrupt_file_is_named(run: Path, name: str, content: str, named: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(DataError, match=named):
        write_report(run, background=BLACK)
    assert not (run / "report.html").exists()
