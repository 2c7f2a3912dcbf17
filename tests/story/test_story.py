"""The main workflow by its commands: shards, training (killed and resumed, on two ranks), evaluation, prediction."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from geoclip.errors import AssetError
from geoclip.runs.metrics import read_rows
from geoclip.training.checkpoint import read_checkpoint
from tests.commands import begin, begin_ranks, finish, join_all, kill, wait_until

STEPS = 12
SMALL = (
    *("name=story", f"optim.max_steps={STEPS}", "optim.batch_size=32", "queue.size=64", "validate_samples=100"),
    *("validate_every_steps=6", "compute.checkpoint_every_steps=3", "compute.log_every_steps=1"),
    *("optim.warmup_steps=2", "compute.workers=0", "gallery=csv", "gallery.path=gallery.csv"),
)
GALLERY = 2000
VIEWS = ("gallery_size=90000", "val_size=300", "test_size=300", "unseen_size=300")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a small Blue Marble data set in data/bluemarble."""
    from geoclip.data.assets import asset_path

    try:
        for name in ("bmng.jpg", "gallery_100k.csv"):
            asset_path(name)
    except AssetError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("story")
    finish(folder, "shards", "source=bluemarble", *(f"bluemarble.{setting}" for setting in VIEWS))
    places = (folder / "data/bluemarble/gallery.csv").read_text().splitlines()
    (folder / "gallery.csv").write_text("\n".join(places[: 1 + GALLERY]) + "\n")
    return folder


def training(runs: str, *more: str) -> tuple[str, ...]:
    views = (f"data.bluemarble.{setting}" for setting in VIEWS)
    return "train", *SMALL, *views, f"runs_dir={runs}", *more


def run_of(folder: Path, runs: str) -> Path:
    (run,) = (path for path in (folder / runs).iterdir() if path.name.startswith("story-"))
    return run


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """An uninterrupted run, with wandb offline."""
    finish(folder, *training("runs"))
    return run_of(folder, "runs")


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def test_all_files_of_a_run_are_in_one_folder(trained: Path) -> None:
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert names >= {
        *("config.yaml", "provenance.json", "metrics.jsonl", "logs/rank0.log", "checkpoints/best.safetensors"),
        *(f"checkpoints/step-{STEPS:08d}.safetensors", "figures/training.png", "figures/validation.png"),
    }
    assert len(losses(trained)) == STEPS and sum(losses(trained)[-3:]) < sum(losses(trained)[:3])
    assert [row["step"] for row in read_rows(trained / "metrics.jsonl") if row["kind"] == "val"] == [6, STEPS]
    assert list((trained / "wandb").glob("offline-run-*/*.wandb"))
    provenance = json.loads((trained / "provenance.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__ and provenance["git_revision"]


def test_a_killed_run_resumes_and_ends_in_the_same_weights(folder: Path, trained: Path) -> None:
    process = begin(folder, *training("killed", "logger=jsonl"))
    wait_until(lambda: list(folder.glob("killed/*/checkpoints/step-*")), alive=process.is_alive)
    kill(process)
    run = run_of(folder, "killed")
    assert run.name == trained.name  # the logger does not decide the identity
    printed = finish(folder, *training("killed", "logger=jsonl"))
    assert "resumes from step" in printed
    assert losses(run) == losses(trained)
    last = f"checkpoints/step-{STEPS:08d}.safetensors"
    ours, theirs = (read_checkpoint(one / last)["model"] for one in (run, trained))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_two_ranks_have_the_same_losses_as_one(folder: Path, trained: Path) -> None:
    join_all(begin_ranks(folder, 2, *training("ranks", "logger=jsonl")), folder)
    run = run_of(folder, "ranks")
    assert run.name == trained.name
    # Up to rounding (2e-6 after one step), which Adam's division by tiny gradients enlarges.
    assert losses(run) == pytest.approx(losses(trained), abs=1e-3)


@pytest.fixture(scope="module")
def evaluated(folder: Path, trained: Path) -> str:
    """The output of one evaluation of both test splits."""
    return finish(folder, "evaluate", "-m", f"checkpoint={trained}", "benchmark=test,test_unseen_cells")


@pytest.mark.parametrize("benchmark", ["test", "test_unseen_cells"])
def test_evaluation_reports_accuracy_and_ceiling(trained: Path, evaluated: str, benchmark: str) -> None:
    assert benchmark in evaluated and "2500 km" in evaluated and "ceiling" in evaluated
    result = json.loads((trained / "eval" / f"{benchmark}.json").read_text())
    assert result["n"] >= 300 and result["gallery_size"] == GALLERY and result["verbatim_in_gallery"] == 0
    for km in ("1", "25", "200", "750", "2500"):
        share = result["accuracy_percent"][km]
        assert 0 <= share["low"] <= share["value"] <= share["high"] <= result["ceiling_percent"][km] <= 100
    assert {"median_km", "mean_km", "geoscore", "checkpoint_sha256", "gallery_sha256", "git_revision"} <= set(result)
    rows = list(csv.DictReader(io.StringIO((trained / "eval" / f"{benchmark}.csv").read_text())))
    assert len(rows) == result["n"]
    within = sum(float(row["distance_km"]) < 750 for row in rows) / len(rows) * 100
    assert within == pytest.approx(result["accuracy_percent"]["750"]["value"])


def test_prediction_and_report(folder: Path, trained: Path, evaluated: str) -> None:
    with tarfile.open(folder / "data/bluemarble/test/000000.tar") as tar:
        tar.extractall(folder / "views", members=tar.getmembers()[:4], filter="data")
    (folder / "views" / "broken.jpg").write_text("no picture")
    printed = finish(folder, "predict", f"checkpoint={trained}", "image=views", "top_k=3")
    assert "google.com/maps" in printed and "broken.jpg" in printed
    predictions = sorted((trained / "predictions").glob("*.json"))
    assert len(predictions) == 2
    assert len(json.loads(predictions[0].read_text())["predictions"]) == 3
    assert len(list((trained / "predictions").glob("*.png"))) == 2
    assert list((trained / "predictions").glob("*.html"))
    finish(folder, "report", f"run={trained}")
    page = (trained / "report.html").read_text()
    assert "story" in page and page.count("data:image/") >= 6
