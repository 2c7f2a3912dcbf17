"""Evaluate: `python -m geoclip.evaluate checkpoint=… benchmark=… gallery=…`; `--help` explains every key."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point, typed_beside_run
from geoclip.config import BenchmarkConfig, EvaluateConfig, Protocol, Tta, evaluate_problems
from geoclip.errors import DataError
from geoclip.system.console import setup_logging, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then evaluate."""
    setup_logging()
    evaluate(typed_beside_run(cfg, EvaluateConfig, evaluate_problems))


def evaluate(config: EvaluateConfig) -> Path:
    """Evaluate one model on one benchmark; print the table, write eval/NAME.json and .csv; returns the JSON's path.

    Raises:
        GeoclipError: model, benchmark or gallery cannot be read.
    """
    from geoclip.data.picture_sources import MISSING
    from geoclip.evaluation.benchmark import evaluate_benchmark, result_row, write_result
    from geoclip.evaluation.details import detail
    from geoclip.factory.loading import embed_benchmark, load_model
    from geoclip.plotting.details import details_table
    from geoclip.plotting.tables import accuracy_table
    from geoclip.runs.run_dir import git_revision, saving

    loaded = load_model(config, needs_backbone=not config.image_features)
    queries, account = embed_benchmark(config, loaded)
    gallery, protocol = loaded.gallery, config.protocol.value
    result, predictions = evaluate_benchmark(
        config.benchmark.name, queries, gallery, loaded.embedded(gallery),
        seed=config.seed, protocol=protocol, scale=loaded.scale,
    )  # fmt: skip
    train_deg_T2 = _train_locations(config, loaded.folder)
    details = detail(predictions, gallery, protocol=protocol, train_deg_T2=train_deg_T2)
    reasons = dict(account.skipped.counts)
    missing = reasons.pop(MISSING, 0)
    name = evaluation_name(config, is_own_gallery=loaded.is_own_gallery)
    row = result_row(
        name, result, details, seed=config.seed,
        model=loaded.name, checkpoint_sha256=loaded.sha256, git_revision=git_revision(), tta=config.tta.value,
        skipped=reasons, missing=missing, published_n=config.benchmark.published_n,
    )  # fmt: skip
    show(accuracy_table([row]).rich())
    if table := details_table(row):
        show(table.rich())
    _warn_if_not_comparable(config.benchmark, result.verbatim_in_gallery, len(queries.keys))
    path = loaded.folder / "eval" / f"{name}.json"
    with saving(path):
        write_result(path.with_name(name), row, predictions, details)
    log.info("written: %s and .csv", path)
    return path


def evaluation_name(config: EvaluateConfig, *, is_own_gallery: bool) -> str:
    """The name of an evaluation's files: the benchmark, then settings other than the default: test+10k+ten_crop."""
    gallery, more = config.gallery, []
    if not is_own_gallery:
        more.append(Path(gallery.path).stem if gallery.path else gallery.name)
    if config.tta is not Tta.single:
        more.append(config.tta.value)
    if config.protocol is not Protocol.sphere:
        more.append(f"{config.protocol.value}_protocol")
    return "+".join([config.benchmark.name, *more])


def _train_locations(config: EvaluateConfig, run: Path) -> NDArray[np.float64] | None:
    """(T, 2) degrees of config.train_places, or of the run's fraction of its shards; None, logged, if unknown."""
    from geoclip.data.shard_index import coordinates_in
    from geoclip.data.shards import read_shards, take_fraction
    from geoclip.data.tables import read_gps_deg
    from geoclip.runs.run_dir import located
    from geoclip.studies.results import read_config

    if config.train_places:
        return read_gps_deg(Path(config.train_places), "train_places")
    try:
        trained_with = located(read_config(run), run)
        data, features = trained_with["data"], trained_with["encoder"]["features"]
        shards = read_shards(*((features, "train") if features else (data["root"], data["train"])))
        subset = take_fraction(shards, data["fraction"], trained_with["seed"])
        return coordinates_in(subset, sum(map(len, subset)))
    except (OSError, KeyError, TypeError, DataError) as error:
        reason = f"{run} has no config.yaml" if isinstance(error, FileNotFoundError) else error
        log.info("no accuracy by distance to the training locations: %s; give them with train_places=FILE.csv", reason)
        return None


def _warn_if_not_comparable(benchmark: BenchmarkConfig, verbatim: int, n: int) -> None:
    """Warn if this result cannot be compared with published ones."""
    if benchmark.published_n is not None and n != benchmark.published_n:
        log.warning("%d images, but %s as published has %d: not comparable", n, benchmark.name, benchmark.published_n)
    if verbatim:
        log.warning("%d of %d test coordinates are in the gallery verbatim, which improves the result", verbatim, n)


if __name__ == "__main__":
    run_entry_point("evaluate", EvaluateConfig, main)
