"""What is asked of trained models: evaluation, prediction, calibration, comparison, report. Schemas, then rules."""

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
    """Which trained model, shared by evaluation and prediction."""

    checkpoint: str = key("latest", "a run folder or file, latest, official, or a release: see docs/releases.md")
    backbone: str = key("", "of a release: CLIP as Hub id or local folder; empty: the one that the release names")
    runs_dir: str = key("runs", "folder of the run folders")
    device: str = device_key()
    tta: Tta = key(Tta.single, "average the similarities over these views of each picture")
    gallery: GalleryConfig = MISSING
    max_pixels: int = max_pixels_key()
    keep_gallery: bool = key(True, "keep the embedded gallery in $GEOCLIP_CACHE/galleries for the next call")


@dataclass(kw_only=True, slots=True)
class BenchmarkedConfig(ModelSourceConfig):
    """Which trained model on which benchmark, shared by evaluation and calibration."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = key(
        "", ".npz with features (N, F), lat, lon and key (N,), or FOLDER/SPLIT of geoclip.features"
    )
    batch_size: int = key(128, at_least=1, unit="pictures")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(BenchmarkedConfig):
    """One evaluation."""

    seed: int = seed_key("of the bootstrap")
    protocol: Protocol = key(
        Protocol.sphere, "sphere: great circles and <; released: WGS 84 geodesics and <=, as GeoCLIP's code"
    )
    train_places: str = key(
        "", "CSV of the training locations, for accuracy by distance to them; empty: the run's own shards"
    )


@dataclass(kw_only=True, slots=True)
class CalibrateConfig(BenchmarkedConfig):
    """Which model is calibrated on what."""


@dataclass(kw_only=True, slots=True)
class PredictConfig(ModelSourceConfig):
    """Predictions of pictures and texts."""

    image: str = key("", "a picture, or a folder of them")
    text: Any = key([], "for CLIP's text tower")
    top_k: int = key(5, "predictions per query", at_least=1)
    box: list[float] = key([], "south, west, north, east in degrees; west > east crosses the antimeridian")
    country: Any = key([], "ISO 3166 codes")
    smooth_km: float = key(0.0, "standard deviation of the scores' smoothing; 0: none", at_least=0, unit="km")
    refine_m: float | None = key(
        None, "search between the gallery's coordinates to this resolution; null: only these", above=0, unit="m"
    )
    abstain_km: float | None = key(
        None, "of a calibrated model: no prediction with a larger expected error", above=0, unit="km"
    )
    output: str = key("", "folder; empty: predictions/ in the run folder")
    maps: int = key(20, "queries that get a map, at most", at_least=0)
    batch_size: int = key(64, at_least=1, unit="pictures")


@dataclass(kw_only=True, slots=True)
class CompareConfig:
    """Which two runs are compared, and on what."""

    a: str = key(comment="a run folder")
    b: str = key(comment="another one, into which the comparison is written")
    benchmark: BenchmarkConfig = MISSING  # whose eval/<benchmark>.json and .csv are read
    force: bool = key(False, "compare the images that both have, whatever gallery, protocol and tta they used")
    seed: int = seed_key("of the resamples")


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """The page about one run."""

    run: str = key("latest", "a run folder, or latest")
    runs_dir: str = key("runs", "folder of the run folders")


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
    """Every reason why this comparison cannot be made, as far as the files' names tell."""
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
