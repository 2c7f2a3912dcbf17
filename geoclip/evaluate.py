"""Evaluate: `python -m geoclip.evaluate checkpoint=… benchmark=… gallery=…`. `--help` shows everything."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.checks import evaluate_problems
from geoclip.config import BenchmarkConfig, BenchmarkKind, EvaluateConfig, typed
from geoclip.entry import run_entry_point

if TYPE_CHECKING:
    from geoclip.data.batch import SkipReport
    from geoclip.evaluation.benchmark import Queries
    from geoclip.trained import Trained

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then evaluate."""
    config = typed(cfg, EvaluateConfig, evaluate_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    evaluate(config)


def evaluate(config: EvaluateConfig) -> Path:
    """Evaluate one model on one benchmark; print the table and write eval/<benchmark>.json and .csv.

    Returns:
        The JSON's path.

    Raises:
        GeoclipError: model, benchmark or gallery cannot be read.
    """
    from rich import print as rich_print

    from geoclip.drawing.tables import accuracy_table
    from geoclip.evaluation.benchmark import evaluate_benchmark, write_result
    from geoclip.evaluation.gallery import encode_gallery
    from geoclip.run_dir import git_revision
    from geoclip.trained import open_trained

    trained = open_trained(config, needs_backbone=not config.image_features)
    queries, skipped, missing = _queries(config, trained)
    for line in skipped.lines():
        log.warning("skipped %s", line)
    gallery_GD = encode_gallery(trained.model.location_encoder, trained.gallery, trained.world.device)
    result, predictions = evaluate_benchmark(
        config.benchmark.name, queries, trained.gallery, gallery_GD, seed=config.seed
    )
    row = write_result(
        trained.folder / "eval",
        result,
        predictions,
        model=trained.name,
        checkpoint_sha256=trained.sha256,
        git_revision=git_revision(),
        tta=config.tta.value,
        bootstrap_seed=config.seed,
        skipped=dict(skipped.counts),
        missing=len(missing),
        published_n=config.benchmark.published_n,
    )
    rich_print(accuracy_table([row]).rich())
    _say_what_differs(config.benchmark, result.verbatim_in_gallery, len(queries.keys), missing)
    path = trained.folder / "eval" / f"{config.benchmark.name}.json"
    log.info("written: %s and .csv", path)
    return path


def _queries(config: EvaluateConfig, trained: Trained) -> tuple[Queries, SkipReport, list[str]]:
    """The benchmark's images, embedded; what was broken; which were missing."""
    from geoclip.data.batch import SkipReport
    from geoclip.data.benchmarks import photo_batches, read_features, read_photos
    from geoclip.data.decoding import PictureDecoder
    from geoclip.data.feature_shards import read_feature_split
    from geoclip.data.shard_list import read_shards
    from geoclip.data.stream import evaluation_batches
    from geoclip.data.subset import whole
    from geoclip.evaluation.benchmark import embed_features, embed_images

    benchmark, device = config.benchmark, trained.world.device
    if config.image_features:
        path, dim = Path(config.image_features), trained.model.image_encoder.feature_dim
        features = (
            read_feature_split(path, dim, trained.encoder) if path.is_dir() else read_features(path, dim)
        )
        return embed_features(trained.model, *features, device), SkipReport(), []
    missing: list[str] = []
    if not benchmark.root:  # as checked, the shards that were built of it are there
        benchmark = replace(benchmark, kind=BenchmarkKind.shards, root=benchmark.built, split="test")
    match benchmark.kind:
        case BenchmarkKind.shards:
            stretches = whole(read_shards(benchmark.root, benchmark.split))
            decoder = PictureDecoder(preprocessing=trained.preprocessing)
            batches = evaluation_batches(stretches, decoder, config.batch_size)
            total = sum(map(len, stretches))
        case BenchmarkKind.photos:
            photos, missing = read_photos(Path(benchmark.root), benchmark.metadata)
            batches = photo_batches(photos, trained.preprocessing, config.batch_size)
            total = len(photos)
    queries, skipped = embed_images(trained.model, batches, device, total=total)
    return queries, skipped, missing


def _say_what_differs(benchmark: BenchmarkConfig, verbatim: int, n: int, missing: list[str]) -> None:
    """What a reader of the table must know before it is compared with others."""
    if missing:
        log.warning("%d photographs of the CSV are missing, first %s", len(missing), ", ".join(missing[:5]))
    if benchmark.published_n is not None and n != benchmark.published_n:
        log.warning(
            "%d images, but %s as published has %d: not comparable", n, benchmark.name, benchmark.published_n
        )
    if verbatim:
        log.warning(
            "%d of %d test coordinates stand verbatim in the gallery, which flatters the result", verbatim, n
        )


if __name__ == "__main__":
    run_entry_point("evaluate", EvaluateConfig, main)
