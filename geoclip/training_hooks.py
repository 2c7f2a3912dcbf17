"""What a training run does beside training: record, validate and keep the best, checkpoint. Rank 0 alone writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from geoclip.build import build_evaluation_decoder
from geoclip.config import TrainConfig
from geoclip.data.batch import SkipReport
from geoclip.data.blue_marble import read_earth
from geoclip.data.shard_list import Shard
from geoclip.distributed import World, gather_objects, told_by_main
from geoclip.drawing.curves import draw_training
from geoclip.drawing.maps import draw_predictions
from geoclip.drawing.tables import median_text
from geoclip.errors import AssetError
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.images import Predictions
from geoclip.percent import percent_text
from geoclip.recorder import Recorder, read_rows
from geoclip.run_dir import plain, provenance
from geoclip.training.keeping import CheckpointWriter, step_files
from geoclip.training.loop import Hooks
from geoclip.training.state import TrainState, rank_tree, state_tree, weights_tree
from geoclip.training.stopping import StopRequest
from geoclip.training.validation import Interrupted, Validation

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the maps' background


def run_hooks(
    config: TrainConfig,
    run: Path,
    val_shards: list[Shard],
    gallery: Gallery,
    files: dict[str, str],
    recorder: Recorder | None,
    writer: CheckpointWriter | None,
    world: World,
    stop: StopRequest,
    last_step: int,
) -> Hooks:
    """The hooks of a run; rank 0 has a recorder and a writer."""
    facts: dict[str, Any] = {"config": plain(config), "files": files, "cwd": str(Path.cwd())}
    validation = None
    if world.is_main:
        facts |= {"wandb_run_id": run.name, "versions": provenance(world.size)["versions"]}
        decoder = build_evaluation_decoder(config.encoder, config.data)
        validation = Validation(
            val_shards, gallery, decoder, config.validate_samples, world.device, config.protocol.value
        )
        validation.account.log()

    def record(state: TrainState, values: dict[str, Any]) -> None:
        if recorder:
            recorder.record("train", state.step, **values)

    def validate(state: TrainState) -> bool:
        done = True
        if recorder and validation and writer:
            try:
                result, predictions = validation.run(state.model, lambda: bool(stop.reason()))
            except Interrupted:
                done = False
            else:
                accuracy = result.accuracy
                percent = {str(km): interval.value for km, interval in accuracy.percent.items()}
                values = {"median_km": accuracy.median_km.value, "geoscore": accuracy.geoscore.value}
                recorder.record(
                    "val", state.step, samples=state.samples_seen, accuracy_percent=percent, **values
                )
                shares = ", ".join(f"{percent_text(share)} % within {km} km" for km, share in percent.items())
                log.info(
                    "step %d, validation: %s; median %s km",
                    state.step,
                    shares,
                    median_text(values["median_km"]),
                )
                if values["geoscore"] > state.best_geoscore:
                    state.best_geoscore = values["geoscore"]
                    writer.save_best(weights_tree(state.model, state.step, **facts))
                if state.step == last_step:
                    _draw_validation(run, predictions, recorder, state.step)
                    columns = [f"within {km} km, %" for km in percent]
                    recorder.table("validation", columns, [list(percent.values())], state.step)
        return told_by_main(done, world)

    def checkpoint(state: TrainState) -> None:
        ranks, reports = gather_objects(rank_tree(state)), gather_objects(state.skipped)
        if writer:
            skipped = SkipReport()
            for report in reports:
                skipped.merge(report)
            writer.save(state.step, state_tree(state, ranks, skipped, **facts))

    def last_good() -> str:
        if writer:
            writer.wait()
        return str(next(iter(step_files(run / "checkpoints")), "none yet"))

    return Hooks(
        record=record,
        validate=validate,
        checkpoint=checkpoint,
        last_good=last_good,
        record_every=config.compute.log_every_steps,
        validate_every=config.validate_every_steps,
        checkpoint_every=config.compute.checkpoint_every_steps,
    )


def _draw_validation(run: Path, predictions: Predictions, recorder: Recorder, step: int) -> None:
    """A map of where the validation views were taken and how far off the predictions are."""
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
    recorder.picture("validation_map", path, step)


def draw_training_curves(run: Path, recorder: Recorder, step: int) -> None:
    """The curves of a run that has ended."""
    path = run / "figures" / "training.png"
    draw_training(read_rows(run / "metrics.jsonl"), path)
    recorder.picture("training", path, step)
