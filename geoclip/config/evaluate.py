"""Use of trained models: evaluation, prediction, calibration, comparison, report. Schemas, then rules."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from geoclip.config.choices import BenchmarkKind, GalleryKind, Protocol, Tta
from geoclip.config.data import (
    BenchmarkConfig,
    GalleryConfig,
    box_problems,
    country_problems,
    gallery_problems,
    max_pixels_key,
    no_photographs,
    one_or_many,
)
from geoclip.config.keys import device_key, key, seed_key


@dataclass(kw_only=True, slots=True)
class ModelSourceConfig:
    """A trained model, shared by evaluation, calibration and prediction."""

    checkpoint: str = key(
        "latest", "run folder, checkpoint, latest (newest run), official, or a release (docs/releases.md)"
    )
    backbone: str = key("", "CLIP of a release, as Hub id or local folder; empty: the one that the release names")
    runs_dir: str = key("runs", "folder that contains the run folders")
    device: str = device_key()
    tta: Tta = key(Tta.single, "views of each picture over which similarities are averaged")
    gallery: GalleryConfig = MISSING
    max_pixels: int = max_pixels_key()
    keep_gallery: bool = key(True, "cache the embedded gallery in $GEOCLIP_CACHE/galleries")


@dataclass(kw_only=True, slots=True)
class BenchmarkedConfig(ModelSourceConfig):
    """A trained model and a benchmark, shared by evaluation and calibration."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = key(
        "", "instead of pictures: .npz with features (N, F), lat, lon, key (N,), or a split of geoclip.features"
    )
    batch_size: int = key(128, "pictures per batch", at_least=1, unit="pictures")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(BenchmarkedConfig):
    """One evaluation."""

    seed: int = seed_key("of the bootstrap")
    protocol: Protocol = key(
        Protocol.sphere, "sphere: great circles, error < threshold; released: WGS 84 geodesics, error <= threshold"
    )
    train_places: str = key(
        "", "CSV of training locations, for accuracy by distance to them; empty: the run's training shards"
    )


@dataclass(kw_only=True, slots=True)
class CalibrateConfig(BenchmarkedConfig):
    """One calibration."""


@dataclass(kw_only=True, slots=True)
class PredictConfig(ModelSourceConfig):
    """Predictions of pictures and texts."""

    image: str = key("", "picture, or folder of pictures")
    text: Any = key([], "text queries, embedded by CLIP's text encoder")
    top_k: int = key(5, "number of predictions per query", at_least=1)
    box: list[float] = key(
        [], "predict only within [south,west,north,east], degrees; west > east crosses the antimeridian"
    )
    country: Any = key([], "predict only within these countries, ISO 3166 codes")
    smooth_km: float = key(
        0.0, "standard deviation of Gaussian smoothing of the scores; 0: none", at_least=0, unit="km"
    )
    refine_m: float | None = key(
        None, "search between the gallery's coordinates to this resolution; null: do not", above=0, unit="m"
    )
    abstain_km: float | None = key(
        None, "calibrated model: largest expected error of a prediction; null: any", above=0, unit="km"
    )
    output: str = key("", "folder to write; empty: predictions/ in the run folder")
    maps: int = key(20, "largest number of queries for which a map is drawn", at_least=0)
    batch_size: int = key(64, "pictures per batch", at_least=1, unit="pictures")


@dataclass(kw_only=True, slots=True)
class CompareConfig:
    """Two runs and the benchmark on which they are compared."""

    a: str = key(comment="run folder of the baseline")
    b: str = key(comment="run folder to compare with it; the comparison is written there")
    benchmark: BenchmarkConfig = MISSING  # whose eval/<benchmark>.json and .csv are read
    force: bool = key(False, "compare the common images, also if images, gallery, protocol or tta differ")
    seed: int = seed_key("of the bootstrap")


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """The report on one run."""

    run: str = key("latest", "run folder, or latest (the newest run)")
    runs_dir: str = key("runs", "folder that contains the run folders")


def evaluate_problems(config: EvaluateConfig) -> list[str]:
    """Every reason why this evaluation cannot start."""
    problems = _benchmark_problems(config)
    if config.train_places and not os.path.isfile(config.train_places):
        problems.append(f"train_places={config.train_places}: is not a file; must be a CSV with LAT and LON")
    return problems


def calibrate_problems(config: CalibrateConfig) -> list[str]:
    """Every reason why this calibration cannot start."""
    problems = _benchmark_problems(config)
    if config.benchmark.name.startswith("test") or config.benchmark.published_n is not None:
        problems.append(
            f"benchmark={config.benchmark.name}: is a test set, and a temperature fitted there would flatter every "
            "result on it; calibrate on benchmark=val"
        )
    return problems


def _benchmark_problems(config: BenchmarkedConfig) -> list[str]:
    problems = _model_source_problems(config)
    benchmark = config.benchmark
    if config.image_features:
        if not os.path.exists(config.image_features):
            problems.append(
                f"image_features={config.image_features}: is neither a .npz nor a split of geoclip.features"
            )
        if config.tta is not Tta.single:
            problems.append(
                f"tta={config.tta.value}: needs pictures, but image_features={config.image_features} has one view of "
                "each; leave one of the two out"
            )
    elif not benchmark.root:
        if not (benchmark.built and os.path.isfile(os.path.join(benchmark.built, "test", "index.json"))):
            problems.append(
                no_photographs(
                    benchmark, "the folder of the photographs and their CSV, or build shards of them: docs/data.md"
                )
            )
    elif not os.path.isdir(benchmark.root):
        is_shards = benchmark.kind is BenchmarkKind.shards
        fix = "build it: python -m geoclip.shards" if is_shards else benchmark.source
        problems.append(f"benchmark.root={benchmark.root}: is not a folder; {fix}")
    return problems


def _model_source_problems(config: ModelSourceConfig) -> list[str]:
    """Reasons why this model and its gallery cannot be opened."""
    problems = []
    named = config.checkpoint in ("latest", "official") or config.checkpoint.startswith("hf-hub:")
    if not named and not os.path.exists(config.checkpoint):
        problems.append(
            f"checkpoint={config.checkpoint}: is neither a run folder nor a file; `latest` is the newest run in "
            f"{config.runs_dir}/, `official` the released model, hf-hub:OWNER/NAME a release on the Hub"
        )
    if config.gallery.kind is not GalleryKind.own:
        problems += gallery_problems(config.gallery)
    return problems


def predict_problems(config: PredictConfig) -> list[str]:
    """Every reason why this prediction cannot start."""
    problems = [*_model_source_problems(config), *box_problems(config.box), *country_problems(config.country)]
    texts = one_or_many(config.text)
    if not config.image and not texts:
        problems.append("image, text: must be given; image=FILE_OR_FOLDER or text='…'")
    if config.image and not os.path.exists(config.image):
        problems.append(f"image={config.image}: is neither a file nor a folder")
    elif config.image and config.output:
        output, image = Path(config.output).resolve(), Path(config.image).resolve()
        if output.is_relative_to(image) if image.is_dir() else output == image.parent:
            problems.append(
                f"output={config.output}: is among the pictures; maps would be read as pictures and their .json files "
                "overwritten; name another folder"
            )
    if any(not text.strip() for text in texts):
        problems.append("text='': is empty; give a text, or text='[one, another]'")
    return problems


def compare_problems(config: CompareConfig) -> list[str]:
    """Every reason why this comparison cannot be made, judged by the names of its files."""
    problems, benchmark = [], config.benchmark.name
    for name in ("a", "b"):
        run = getattr(config, name)
        if not os.path.isdir(run):
            problems.append(f"{name}={run}: is not a run folder")
        elif not all(os.path.isfile(f"{run}/eval/{benchmark}.{kind}") for kind in ("json", "csv")):
            problems.append(
                f"{name}={run}: was not evaluated on {benchmark}; python -m geoclip.evaluate checkpoint={run} "
                f"benchmark={benchmark}"
            )
    return problems
