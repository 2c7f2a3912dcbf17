"""Why an evaluation or a prediction cannot start."""

from __future__ import annotations

import os

from geoclip.checks.data import gallery_problems
from geoclip.config import (
    BenchmarkKind,
    CalibrateConfig,
    EvaluateConfig,
    GalleryKind,
    ModelSourceConfig,
    Tta,
)


def evaluate_problems(config: EvaluateConfig) -> list[str]:
    """Every reason why this evaluation cannot start."""
    problems = asked_problems(config)
    if config.train_places and not os.path.isfile(config.train_places):
        problems.append(f"train_places={config.train_places} is no file; a CSV with LAT and LON is expected")
    return problems


def asked_problems(config: EvaluateConfig | CalibrateConfig) -> list[str]:
    """Reasons why this model cannot be asked about this benchmark."""
    problems = model_source_problems(config)
    benchmark = config.benchmark
    if config.image_features:
        if not os.path.exists(config.image_features):
            problems.append(
                f"image_features={config.image_features} is neither a .npz nor a split that geoclip.features wrote"
            )
    elif not benchmark.root:
        variable = f"{benchmark.variable}=FOLDER or " if benchmark.variable else ""
        if not (benchmark.built and os.path.isfile(os.path.join(benchmark.built, "test", "index.json"))):
            problems.append(
                f"benchmark={benchmark.name} has no photographs: set {variable}benchmark.root=FOLDER to the folder "
                f"that holds them and their CSV, or build shards of them: docs/data.md. {benchmark.source}"
            )
    elif not os.path.isdir(benchmark.root):
        cure = (
            "build it: python -m geoclip.shards"
            if benchmark.kind is BenchmarkKind.shards
            else benchmark.source
        )
        problems.append(f"benchmark.root={benchmark.root} is no folder; {cure}")
    if config.image_features and config.tta is not Tta.single:
        problems.append(
            f"tta={config.tta.value} needs the pictures: image_features={config.image_features} holds one view of "
            "each; leave one of the two away"
        )
    if config.batch_size < 1:
        problems.append(f"batch_size={config.batch_size} must be 1 or more")
    return problems


def model_source_problems(config: ModelSourceConfig) -> list[str]:
    """Reasons why this model and its gallery cannot be opened."""
    problems = []
    named = config.checkpoint in ("latest", "official") or config.checkpoint.startswith("hf-hub:")
    if not named and not os.path.exists(config.checkpoint):
        problems.append(
            f"checkpoint={config.checkpoint} is neither a run's folder nor a file; `latest` is the newest run in "
            f"{config.runs_dir}/, `official` the released model, hf-hub:OWNER/NAME a release on the Hub"
        )
    if config.max_pixels < 1:
        problems.append(f"max_pixels={config.max_pixels} must be 1 or more")
    if config.gallery.kind is not GalleryKind.own:
        problems += gallery_problems(config.gallery)
    return problems
