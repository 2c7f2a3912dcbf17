"""Train: `python -m geoclip.train`, or `torchrun --nproc-per-node=N -m geoclip.train`. `--help` shows everything."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.checks import train_problems
from geoclip.config import LoggerMode, TrainConfig, typed
from geoclip.entry import print_config, run_entry_point, world_size_from_environment
from geoclip.errors import AssetError

if TYPE_CHECKING:
    from geoclip.data.shard_list import Shard
    from geoclip.distributed import World
    from geoclip.evaluation.benchmark import Predictions
    from geoclip.evaluation.gallery import Gallery
    from geoclip.recorder import Recorder
    from geoclip.training.loop import Hooks
    from geoclip.training.state import TrainState

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the maps' background


def main(cfg: DictConfig) -> None:
    """Check the configuration, then train (or stop there, with check_only=true)."""
    config = typed(cfg, TrainConfig, lambda found: train_problems(found, world_size_from_environment()))
    if config.check_only:
        print_config(cfg)
        return
    train_run(config)


def train_run(config: TrainConfig) -> Path:
    """Train from the run's newest checkpoint, or from the start, to the last step.

    Returns:
        The run's folder.

    Raises:
        GeoclipError: data, gallery or checkpoint cannot be used.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    from geoclip.build import build_gallery, build_recipe, build_state, build_stream_plan
    from geoclip.data.feature_shards import read_record
    from geoclip.data.shard_list import fingerprint
    from geoclip.data.stream import train_batches
    from geoclip.distributed import initialise
    from geoclip.run_dir import fingerprint_of, plain, run_path, write_identity
    from geoclip.run_shards import open_shards
    from geoclip.training.loop import train
    from geoclip.training.state import load_state

    world = initialise(config.compute.device, size=world_size_from_environment())
    logging.basicConfig(format="%(message)s", level=logging.INFO if world.is_main else logging.WARNING)
    splits = open_shards(config.data, config.encoder, world)
    gallery = build_gallery(config.gallery)
    files = {"shards": fingerprint(splits["train"]), "gallery": gallery.sha256[:8]}
    if config.encoder.features:
        files["features"] = fingerprint_of(read_record(Path(config.encoder.features)))
    run = run_path(plain(config), files)
    plan = build_stream_plan(config, splits["train"])
    recipe = build_recipe(config, plan.samples, world.device)
    state = build_state(config, plan.subset, world)
    last = run / "checkpoints" / "last.pt"
    if last.is_file():
        load_state(last, state)
    if last.is_file() and state.step >= recipe.last_step:
        log.info("%s is trained to its last step, %d; nothing to do", run, state.step)
        return run
    if world.is_main:
        write_identity(run, plain(config), world.size)
    _announce(run, state, recipe.last_step, plan.samples, config.optim.batch_size)
    batches = train_batches(
        plan,
        rank=world.rank,
        world_size=world.size,
        workers=config.compute.workers,
        first_step=state.step,
        last_step=recipe.last_step,
    )
    with _recorder(config, run, state.step) if world.is_main else contextlib.nullcontext() as recorder:
        hooks = _hooks(config, run, splits["val"], gallery, recorder, world, recipe.last_step)
        with logging_redirect_tqdm():
            skipped = train(state, batches, recipe, hooks, world)
        for line in skipped.lines():
            log.warning("skipped %s", line)
        if recorder:
            recorder.record("skipped", state.step, total=skipped.counts.total(), reasons=dict(skipped.counts))
            _draw_training(run, recorder)
    log.info("trained: %s", run)
    return run


def _announce(run: Path, state: TrainState, last_step: int, samples: int, batch_size: int) -> None:
    trained = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    verb = f"goes on from step {state.step}" if state.step else "starts"
    log.info(
        "%s %s: %d steps of %d (%.1f epochs), %s trained parameters",
        run, verb, last_step, batch_size, last_step * batch_size / samples, f"{trained:,}",
    )  # fmt: skip


def _recorder(config: TrainConfig, run: Path, step: int) -> Recorder:
    """metrics.jsonl, mirrored to wandb unless that is disabled."""
    from geoclip.recorder import Recorder, WandbMirror
    from geoclip.run_dir import plain

    mirror = None
    if config.logger.mode is not LoggerMode.disabled:
        mirror = WandbMirror(
            run,
            mode=config.logger.mode.value,
            project=config.logger.project,
            entity=config.logger.entity,
            name=run.name,
            config=plain(config),
            run_id=run.name,
        )
    return Recorder(run / "metrics.jsonl", step=step, mirror=mirror)


def _hooks(
    config: TrainConfig,
    run: Path,
    val_shards: list[Shard],
    gallery: Gallery,
    recorder: Recorder | None,
    world: World,
    last_step: int,
) -> Hooks:
    """What the loop does beside training: record, validate and keep the best, checkpoint. Rank 0 alone acts."""
    from geoclip.build import build_evaluation_decoder
    from geoclip.distributed import wait_for_all
    from geoclip.run_dir import plain
    from geoclip.training.loop import Hooks
    from geoclip.training.state import save_state, save_weights
    from geoclip.training.validation import Validation

    validation = None
    if world.is_main:
        decoder = build_evaluation_decoder(config.encoder)
        validation = Validation(val_shards, gallery, decoder, config.validate_samples, world.device)

    def record(state: TrainState, values: dict[str, float]) -> None:
        if recorder:
            recorder.record("train", state.step, **values)

    def validate(state: TrainState) -> None:
        if recorder and validation:
            result, predictions = validation.run(state.model)
            accuracy = result.accuracy
            percent = {str(km): interval.value for km, interval in accuracy.percent.items()}
            values = {"median_km": accuracy.median_km.value, "geoscore": accuracy.geoscore.value}
            recorder.record("val", state.step, samples=state.samples_seen, accuracy_percent=percent, **values)
            shares = ", ".join(f"{share:.1f} % < {km} km" for km, share in percent.items())
            log.info("step %d, validation: %s; median %.3g km", state.step, shares, values["median_km"])
            if values["geoscore"] > state.best_geoscore:
                state.best_geoscore = values["geoscore"]
                save_weights(run / "checkpoints" / "best.pt", state.model, plain(config), step=state.step)
            if state.step == last_step:
                _draw_validation(run, predictions, recorder)
                recorder.table("validation", [f"< {km} km, %" for km in percent], [list(percent.values())])
        wait_for_all()

    def checkpoint(state: TrainState) -> None:
        if world.is_main:
            save_state(run / "checkpoints" / "last.pt", state, plain(config))

    return Hooks(
        record=record,
        validate=validate,
        checkpoint=checkpoint,
        record_every=config.compute.log_every_steps,
        validate_every=config.validate_every_steps,
        checkpoint_every=config.compute.checkpoint_every_steps,
    )


def _draw_validation(run: Path, predictions: Predictions, recorder: Recorder) -> None:
    """A map of where the validation views were taken and how far off the predictions are."""
    from geoclip.data.blue_marble import read_earth
    from geoclip.drawing.maps import draw_predictions

    path = run / "figures" / "validation.png"
    try:
        background = read_earth(EARTH_PX)
    except AssetError as error:  # a map is not worth a run
        log.warning("no map of the validation: %s", error)
        return
    draw_predictions(
        predictions.gps_deg_N2.numpy(),
        predictions.guess_deg_N2.numpy(),
        predictions.distance_km_N.numpy(),
        background,
        path,
        title="validation",
    )
    recorder.picture("validation_map", path)


def _draw_training(run: Path, recorder: Recorder) -> None:
    from geoclip.drawing.curves import draw_training
    from geoclip.recorder import read_rows

    path = run / "figures" / "training.png"
    draw_training(read_rows(run / "metrics.jsonl"), path)
    recorder.picture("training", path)


if __name__ == "__main__":
    run_entry_point("train", TrainConfig, main)
