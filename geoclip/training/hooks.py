"""What a training run does besides its steps: record, validate, save checkpoints and the best weights, on rank 0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geoclip.data.batch import Account, Batch, Decoder
from geoclip.data.blue_marble import read_earth
from geoclip.data.shards import Shard, all_samples
from geoclip.data.stream import evaluation_batches
from geoclip.distributed import World, broadcast_from_main, gather_objects
from geoclip.errors import AssetError, DataError
from geoclip.evaluation.benchmark import BenchmarkResult, evaluate_benchmark
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.evaluation.retrieval import Predictions, embed_images
from geoclip.model.geoclip import GeoCLIP
from geoclip.plotting.curves import draw_training
from geoclip.plotting.maps import draw_predictions
from geoclip.plotting.tables import median_text
from geoclip.runs.metrics import Recorder, read_rows
from geoclip.system.console import percent_text
from geoclip.training.checkpoint import CheckpointWriter, step_files
from geoclip.training.loop import Hooks, skipped_on_all_ranks
from geoclip.training.preemption import StopRequest
from geoclip.training.state import TrainState, rank_tree, state_tree, weights_tree
from geoclip.training.step import Recipe

log = logging.getLogger("geoclip")

BATCH = 256  # of the validation
EARTH_PX = 2160  # width of the maps' background


@dataclass(kw_only=True, slots=True)
class RunContext:
    """What a run needs besides its state; built again at every start."""

    folder: Path
    world: World
    stop: StopRequest
    gallery: Gallery
    val_shards: list[Shard]
    files: dict[str, str]  # fingerprints of the data
    choices: Mapping[str, str]  # the chosen option of each configuration group
    recipe: Recipe
    recorder: Recorder | None = None  # on rank 0, as the writer
    writer: CheckpointWriter | None = None


def run_hooks(context: RunContext, validation: Validation | None, facts: dict[str, Any], **every: int) -> Hooks:
    """The hooks of a run; recorder, writer and validation exist only on rank 0.

    `facts` are added to every checkpoint. `every`: `record_every`, `validate_every`, `checkpoint_every`, in steps.
    """
    return Hooks(
        record=partial(_record, context),
        validate=partial(_validate, context, validation, facts),
        checkpoint=partial(_checkpoint, context, facts),
        last_good=partial(_last_good, context),
        **every,
    )


def _record(context: RunContext, state: TrainState, values: dict[str, Any]) -> None:
    if context.recorder:
        context.recorder.record("train", state.step, **values)


def _checkpoint(context: RunContext, facts: dict[str, Any], state: TrainState) -> None:
    ranks, skipped = gather_objects(rank_tree(state)), skipped_on_all_ranks(state)
    if context.writer:
        context.writer.save(state.step, state_tree(state, ranks, skipped, **facts))


def _last_good(context: RunContext) -> str:
    if context.writer:
        context.writer.wait()
    return str(next(iter(step_files(context.folder / "checkpoints")), "none yet"))


def _validate(context: RunContext, validation: Validation | None, facts: dict[str, Any], state: TrainState) -> bool:
    """Validate on rank 0 and keep the best weights; False, on every rank, if it was interrupted."""
    done = True
    if validation and context.recorder and context.writer:
        try:
            result, predictions = validation.run(state.model, lambda: bool(context.stop.reason()))
        except Interrupted:
            done = False
        else:
            is_last = state.step == context.recipe.last_step
            _record_validation(context.recorder, state, result, is_last)
            geoscore = result.accuracy.geoscore.value
            if geoscore > state.best_geoscore:
                state.best_geoscore = geoscore
                context.writer.save_best(weights_tree(state.model, state.step, **facts))
            if is_last:
                _draw_validation(context.folder, predictions, context.recorder, state.step)
    return broadcast_from_main(done, context.world)


def _record_validation(recorder: Recorder, state: TrainState, result: BenchmarkResult, is_last: bool) -> None:
    accuracy = result.accuracy
    percent = {str(km): interval.value for km, interval in accuracy.percent.items()}
    values = {"median_km": accuracy.median_km.value, "geoscore": accuracy.geoscore.value}
    recorder.record("val", state.step, samples=state.samples_seen, accuracy_percent=percent, **values)
    shares = ", ".join(f"{percent_text(share)} % within {km} km" for km, share in percent.items())
    log.info("step %d, validation: %s; median %s km", state.step, shares, median_text(values["median_km"]))
    if is_last:
        columns = [f"within {km} km, %" for km in percent]
        recorder.table("validation", columns, [list(percent.values())], state.step)


def _draw_validation(run: Path, predictions: Predictions, recorder: Recorder, step: int) -> None:
    """A map of the true locations, coloured by the error of the prediction."""
    path = run / "figures" / "validation.png"
    try:
        background = read_earth(EARTH_PX)
    except AssetError as error:
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
    """Draw loss and accuracy over the steps of a finished run."""
    path = run / "figures" / "training.png"
    draw_training(read_rows(run / "metrics.jsonl"), path)
    recorder.picture("training", path, step)


class Interrupted(Exception):
    """The validation was stopped before its end."""


class Validation:
    """The first `limit` pictures of the validation split, decoded once and kept in memory, and a gallery.

    `protocol`: of distances, `sphere` or `released`.

    Raises:
        DataError: no picture is readable.
    """

    def __init__(
        self,
        shards: list[Shard],
        gallery: Gallery,
        decoder: Decoder,
        limit: int,
        device: torch.device,
        protocol: str = "sphere",
    ) -> None:
        self.gallery, self.device, self.protocol = gallery, device, protocol
        self.account = Account(what="validation", used=0, unit="pictures")
        self.batches: list[Batch] = []
        for batch in evaluation_batches(all_samples(shards, limit), decoder, BATCH):
            self.account.used += len(batch.keys)
            self.account.skipped.add(batch.skipped)
            self.batches.append(batch)
        if not any(batch.keys for batch in self.batches):
            raise DataError(f"no readable picture in {', '.join(shard.path for shard in shards)}")

    def run(
        self, model: GeoCLIP, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[BenchmarkResult, Predictions]:
        """Accuracy, with one prediction per picture. Leaves the model in evaluation mode.

        Raises:
            Interrupted: `interrupted` returned True between two batches.
        """

        def batches() -> Iterator[Batch]:
            for batch in self.batches:
                if interrupted():
                    raise Interrupted
                yield batch

        queries, _ = embed_images(model, batches(), self.device)
        gallery_GD = encode_gallery(model.location_encoder, self.gallery, self.device)
        return evaluate_benchmark("val", queries, self.gallery, gallery_GD, protocol=self.protocol)
