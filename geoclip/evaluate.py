"""Evaluate: `python -m geoclip.evaluate checkpoint=… benchmark=… gallery=…`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.checks import evaluate_problems
from geoclip.config import BenchmarkConfig, EvaluateConfig, Protocol, Tta
from geoclip.console import setup_logging, show
from geoclip.entry import run_entry_point, typed_beside_run
from geoclip.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then evaluate."""
    setup_logging()
    config = typed_beside_run(cfg, EvaluateConfig, evaluate_problems)
    evaluate(config)


def evaluate(config: EvaluateConfig) -> Path:
    """Evaluate one model on one benchmark; print the table and write eval/NAME.json and .csv, see `evaluation_name`.

    Returns:
        The JSON's path.

    Raises:
        GeoclipError: model, benchmark or gallery cannot be read.
    """
    from geoclip.data.benchmarks import MISSING
    from geoclip.drawing.details_table import details_table
    from geoclip.drawing.tables import accuracy_table
    from geoclip.evaluation.benchmark import evaluate_benchmark, result_row, write_result
    from geoclip.evaluation.details import detail
    from geoclip.queries import embedded_queries
    from geoclip.run_dir import git_revision, saving
    from geoclip.trained import open_trained

    trained = open_trained(config, needs_backbone=not config.image_features)
    queries, account = embedded_queries(config, trained)
    gallery_GD = trained.embedded(trained.gallery)
    protocol = config.protocol.value
    result, predictions = evaluate_benchmark(
        config.benchmark.name,
        queries,
        trained.gallery,
        gallery_GD,
        seed=config.seed,
        protocol=protocol,
        scale=trained.model.logit_scale.exp().item(),
    )
    places = _training_places(config, trained.folder)
    reasons = dict(account.skipped.counts)
    missing = reasons.pop(MISSING, 0)
    details = detail(predictions, trained.gallery, protocol=protocol, train_deg_T2=places)
    name = evaluation_name(config, is_own_gallery=trained.is_own_gallery)
    row = result_row(
        name,
        result,
        details,
        seed=config.seed,
        model=trained.name,
        checkpoint_sha256=trained.sha256,
        git_revision=git_revision(),
        tta=config.tta.value,
        skipped=reasons,
        missing=missing,
        published_n=config.benchmark.published_n,
    )
    show(accuracy_table([row]).rich())
    if table := details_table(row):
        show(table.rich())
    _say_what_differs(config.benchmark, result.verbatim_in_gallery, len(queries.keys))
    path = trained.folder / "eval" / f"{name}.json"
    with saving(path):
        write_result(path.with_name(name), row, predictions, details)
    log.info("written: %s and .csv", path)
    return path


def evaluation_name(config: EvaluateConfig, *, is_own_gallery: bool) -> str:
    """The name of an evaluation's files: the benchmark's, and what is not as usual, as in test+10k+ten_crop."""
    gallery, more = config.gallery, []
    if not is_own_gallery:
        more.append(Path(gallery.path).stem if gallery.path else gallery.name)
    if config.tta is not Tta.single:
        more.append(config.tta.value)
    if config.protocol is not Protocol.sphere:
        more.append(f"{config.protocol.value}_protocol")
    return "+".join([config.benchmark.name, *more])


def _training_places(config: EvaluateConfig, run: Path) -> NDArray[np.float64] | None:
    """(T, 2) degrees of what a run was trained on, or of config.train_places; None, and a line says so, if unknown.

    Of a run these are the places in the indices of its shards, of the fraction that it took.
    """
    import numpy as np

    from geoclip.data.shard_index import coordinates_in
    from geoclip.data.shard_list import read_shards
    from geoclip.data.subset import take_fraction
    from geoclip.data.tables import read_coordinates
    from geoclip.evaluation.study_runs import read_config
    from geoclip.run_dir import located

    if config.train_places:
        return read_coordinates(Path(config.train_places), "train_places")[["lat", "lon"]].to_numpy(
            np.float64
        )
    try:
        trained_with = located(read_config(run), run)
        data, features = trained_with["data"], trained_with["encoder"]["features"]
        shards = read_shards(*((features, "train") if features else (data["root"], data["train"])))
        subset = take_fraction(shards, data["fraction"], trained_with["seed"])
        return coordinates_in(subset, sum(map(len, subset)))
    except (OSError, KeyError, TypeError, DataError) as error:
        reason = f"{run} has no config.yaml" if isinstance(error, FileNotFoundError) else error
        log.info(
            "no accuracy by distance to the training places: %s; train_places=FILE.csv names them", reason
        )
        return None


def _say_what_differs(benchmark: BenchmarkConfig, verbatim: int, n: int) -> None:
    """What a reader of the table must know before it is compared with others."""
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
