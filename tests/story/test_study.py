"""From runs to a study's folder: missing evaluations, tables, figures and README."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoclip.config import (
    ComputeConfig,
    ConfigError,
    DataConfig,
    DataKind,
    EncoderConfig,
    EncoderKind,
    GalleryConfig,
    LocationConfig,
    LoggerConfig,
    LoggerMode,
    LossConfig,
    OptimConfig,
    QueueConfig,
    StudyCommandConfig,
    StudyConfig,
    TrainConfig,
    study_problems,
)
from geoclip.factory.model import build_model
from geoclip.runs.run_dir import to_dict, write_identity, write_summary
from geoclip.study import write_lists, write_study
from geoclip.training.checkpoint import pack, write_checkpoint
from geoclip.training.state import weights_tree

README = """# 01 · Sizes

## Question

Does it matter?

## Cost

<!-- generated: cost -->
<!-- end -->

## Table

<!-- generated: tables -->
<!-- end -->

## Verdict

Written by hand.
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_shards: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder: shards, a gallery, the README of study `sizes`, and its runs, of two variants and seeds."""
    monkeypatch.chdir(tmp_path)
    places = tiny_shards([30], split="val").gps_deg
    lines = [f"{lat},{lon}" for lat, lon in places.values()]
    Path("gallery.csv").write_text("\n".join(["LAT,LON", *lines]) + "\n")
    Path("experiments/01_sizes").mkdir(parents=True)
    Path("experiments/01_sizes/README.md").write_text(README)
    Path("experiments/02_queue_sizes").mkdir()  # whose name ends like it
    Path("experiments/02_queue_sizes/README.md").write_text("# 02 · Others\n")
    for size in (4, 16):
        for seed in (0, 1):
            write_run(Path(f"runs/sizes-{size}{seed}"), size, seed)
    return tmp_path


def write_run(run: Path, size: int, seed: int, benchmark: str = "val") -> None:
    """The files of a finished run, with untrained weights."""
    config = TrainConfig(
        name="sizes",
        seed=seed,
        data=DataConfig(name="tiny", kind=DataKind.shards, root="shards"),
        encoder=EncoderConfig(
            name="tiny", kind=EncoderKind.resnet, image_px=16, feature_dim=16, hidden_dim=16,
            stem_dim=8, widths=[8, 16], depths=[1, 1],
        ),
        location=LocationConfig(
            name="tiny", sigmas=[1.0, 16.0], frequencies=8, hidden_dim=16, depth=1, embedding_dim=8
        ),
        queue=QueueConfig(size=size),
        loss=LossConfig(name="one_way"),
        optim=OptimConfig(),
        compute=ComputeConfig(),
        logger=LoggerConfig(),
        gallery=GalleryConfig(name="tiny", path="gallery.csv"),
        study=StudyConfig(name="sizes", by=["queue.size"], baseline="4", benchmarks=[benchmark]),
    )  # fmt: skip
    plain = to_dict(config)
    tree = pack(weights_tree(build_model(config), 1, config=plain))
    write_checkpoint(run / "checkpoints" / "best.safetensors", tree)
    row = {"kind": "train", "step": 1, "samples": 6000, "samples_per_s": 100.0}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    write_identity(run, plain, 1, {})
    write_summary(run, step=1, samples_seen=6000, geoscore=1.0, files={})


def config_of(**changes: Any) -> StudyCommandConfig:
    return StudyCommandConfig(
        name="sizes", device="cpu", jobs=2, logger=LoggerConfig(mode=LoggerMode.offline, patience_s=120), **changes
    )


def evaluated() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("runs").glob("sizes-*/eval/val.json")}


def test_a_study_is_evaluated_and_written_and_a_second_time_only_what_is_missing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "geoclip")
    assert study_problems(config_of()) == []
    made = write_study(config_of())
    first = evaluated()
    assert len(first) == 4
    results = json.loads((made / "results.json").read_text())
    assert [variant["label"] for variant in results["benchmarks"]["val"]["variants"]] == ["4", "16"]
    assert results["benchmarks"]["val"]["n"] == 30
    assert results["setting"]["training_minutes"] == pytest.approx(4.0)
    readme = (made / "README.md").read_text()
    assert "4 runs of 6,000 samples" in readme and "Written by hand." in readme
    table = (made / "val.md").read_text()
    assert "| 16 | 2 |" in table and table in readme
    for picture in ("swept", "curves", "continents"):
        assert (made / f"{picture}.png").is_file() and f"({picture}.png)" in readme
    assert r"\toprule" in (made / "val.tex").read_text()
    (log,) = Path("runs/study-sizes/wandb").glob("offline-run-*/*.wandb")
    assert log.stat().st_size > 0

    Path("runs/sizes-41/eval/val.json").unlink()
    write_run(Path("runs/sizes-165"), 16, 5)
    Path("runs/sizes-165/summary.json").unlink()
    write_study(config_of())
    assert "runs/sizes-165" in caplog.text
    again = evaluated()
    assert {path for path in first if again[path] != first[path]} == {"runs/sizes-41/eval/val.json"}
    assert (made / "README.md").read_text() == readme
    Path("README.md").write_text("# Ours\n\n<!-- generated: sizes -->\nold\n<!-- end -->\n")
    write_lists(Path("experiments"))
    front = Path("README.md").read_text()
    assert f"configuration {results['configuration_hash']} -->" in front and "old" not in front
    assert "| val | 30 |" in front


def test_missing_benchmarks_are_named_before_any_evaluation(folder: Path) -> None:
    write_run(Path("runs/sizes-163"), 16, 3, benchmark="vall")
    write_run(Path("runs/sizes-164"), 16, 4, benchmark="im2gps3k")
    with pytest.raises(ConfigError) as raised:
        write_study(config_of())
    message = str(raised.value)
    assert "study.benchmarks=vall" in message and "test_unseen_cells" in message
    assert "IM2GPS3K_DIR" in message
    assert not evaluated()
