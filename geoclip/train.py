"""Train: `python -m geoclip.train`, or `torchrun --nproc-per-node=N -m geoclip.train`. `--help` lists every key."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.cli.app import (
    chosen_options,
    in_sweep,
    join_submitit,
    print_config,
    require_rendezvous,
    run_entry_point,
    world_size_from_environment,
)
from geoclip.cli.sweep import end_sweep
from geoclip.config import ConfigError, LoggerMode, TrainConfig, train_problems, typed
from geoclip.errors import Preempted
from geoclip.system.console import setup_logging

if TYPE_CHECKING:
    from geoclip.data.stream import StreamPlan
    from geoclip.runs.metrics import Recorder
    from geoclip.training.hooks import RunContext
    from geoclip.training.preemption import StopRequest
    from geoclip.training.state import TrainState

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> float | None:
    """Check the configuration, then train; with check_only=true, check data, gallery and checkpoints and return.

    Returns:
        The best GeoScore on the validation split, for a search.
    """
    join_submitit()
    size = world_size_from_environment()
    config = typed(cfg, TrainConfig, lambda found: train_problems(found, size))
    if config.check_only:
        print_config(cfg)
        check(config)
        return None
    require_rendezvous(size)
    from geoclip.runs.run_dir import read_summary

    return float(read_summary(train_run(config, chosen_options()))["geoscore"])


def check(config: TrainConfig) -> None:
    """Print what is known about a run before it trains.

    Raises:
        ConfigError: it cannot train; every problem is listed.
    """
    from geoclip.cli.preflight import Preflight

    setup_logging()
    found = Preflight().look_at(config, here=True)
    if found.problems:
        raise ConfigError(found.problems)
    verdict = "OK" if found.run else "OK, except for what is not built yet"
    print("\n".join(["", *found.lines(), verdict]), flush=True)


def train_run(config: TrainConfig, choices: Mapping[str, str] | None = None) -> Path:
    """Train from the run's newest checkpoint, or from the start, to the last step.

    `choices`: the chosen option of each configuration group, for provenance.json. Returns the run's folder.

    Raises:
        GeoclipError: data, gallery or checkpoint cannot be used.
        Preempted: a signal or the end of the walltime; the checkpoint is written.
    """
    from geoclip.training.preemption import StopRequest

    with StopRequest(config.compute.max_minutes) as stop:  # before data are read, which can take minutes
        run = _prepare_and_train(config, choices or {}, stop)
        if in_sweep() and stop.reason().startswith("SIG"):  # this run is finished; no further run of the sweep starts
            log.warning("stopped by %s; %s is finished; rerun the command to resume the sweep", stop.reason(), run)
            stop.pass_on()
            raise Preempted(stop.reason(), 0)
        return run


def _prepare_and_train(config: TrainConfig, choices: Mapping[str, str], stop: StopRequest) -> Path:
    """Open data and gallery, find or make the run's folder, resume or start, train, write the summary."""
    from geoclip.data.features import read_record
    from geoclip.data.shards import fingerprint
    from geoclip.data.workers import start_fork_server
    from geoclip.distributed import broadcast_from_main, initialise, wait_for_all
    from geoclip.factory.data import build_gallery, build_stream_plan, open_shards
    from geoclip.factory.training import build_recipe, build_state, require_negatives, resume
    from geoclip.runs import run_dir
    from geoclip.runs.run_dir import log_to_file, setup_console
    from geoclip.training.hooks import RunContext
    from geoclip.training.state import seed_generators

    compute = config.compute
    if compute.workers:
        start_fork_server()  # it imports libraries while this process reads data
    _set_deterministic(compute.deterministic)
    world = initialise(compute.device, size=world_size_from_environment(), timeout_minutes=compute.timeout_minutes)
    setup_console(main=world.is_main)
    splits = open_shards(config.data, config.encoder, world)
    gallery = build_gallery(config.gallery)
    files = {"shards": fingerprint(splits["train"]), "gallery": gallery.sha256[:8]}
    if config.encoder.features:
        files["features"] = run_dir.fingerprint_of(read_record(Path(config.encoder.features)))
    run = run_dir.run_path(run_dir.to_dict(config), files)
    if config.resume == "auto" and broadcast_from_main(run_dir.is_finished(run), world):
        log.info("%s: already finished (to train it further, remove its summary.json)", run)
        return run
    plan = build_stream_plan(config, splits["train"])
    require_negatives(config, plan.subset)
    context = RunContext(
        folder=run,
        world=world,
        stop=stop,
        gallery=gallery,
        val_shards=splits["val"],
        files=files,
        choices=choices,
        recipe=build_recipe(config, plan.samples, world.device),
    )
    with run_dir.claimed(run) if world.is_main else contextlib.nullcontext(), log_to_file(run, world.rank):
        seed_generators(config.seed * 1009 + world.rank)
        state = build_state(config, plan.subset, world)
        resume(config, context, state)
        if world.is_main:
            run_dir.write_identity(run, run_dir.to_dict(config), world.size, choices)
        _log_start(context, state, config.optim.batch_size, plan.samples)
        try:
            _train(config, context, state, plan)
        except Preempted as error:
            stopped = f"stopped by {error.reason} after step {error.step}, its checkpoint written"
            log.warning("%s; rerun the command to resume (status %s)", stopped, error.code)
            stop.pass_on()
            raise
        if world.is_main:
            best, seen = state.best_geoscore, state.samples_seen
            run_dir.write_summary(run, step=state.step, samples_seen=seen, geoscore=best, files=files)
    wait_for_all()  # for rank 0's summary, which every rank reads
    log.info("trained: %s", run)
    return run


def _train(config: TrainConfig, context: RunContext, state: TrainState, plan: StreamPlan) -> None:
    """Open batches, metrics and checkpoints; train to the last step; report what was skipped."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from geoclip.data.batch import Account
    from geoclip.factory.training import build_batches, build_hooks, build_step
    from geoclip.training.checkpoint import CheckpointWriter
    from geoclip.training.hooks import draw_training_curves
    from geoclip.training.loop import train

    world, run, recipe = context.world, context.folder, context.recipe
    batches = build_batches(config, plan, world, state.step, recipe.last_step)
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.closing(batches))
        if world.is_main:
            context.recorder = opened.enter_context(_recorder(config, context, state.step))
            context.writer = opened.enter_context(
                CheckpointWriter(run / "checkpoints", config.compute.keep_checkpoints)
            )
        hooks = build_hooks(config, context)
        opened.enter_context(logging_redirect_tqdm())
        skipped = train(state, batches, recipe, hooks, world, context.stop, build_step(config, state, world))
        bad = skipped.counts.total()
        used = state.samples_seen - bad
        Account(what="training", used=used, skipped=skipped, unit="pictures, all epochs together,").log()
        if context.recorder:
            context.recorder.record("skipped", state.step, total=bad, reasons=dict(skipped.counts))
            draw_training_curves(run, context.recorder, state.step)


def _set_deterministic(deterministic: bool) -> None:
    """Choose deterministic or fast operations. Call it before CUDA starts, which then reads the environment."""
    import torch

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler: seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def _log_start(context: RunContext, state: TrainState, batch_size: int, samples_per_epoch: int) -> None:
    trained = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    verb = f"resumes from step {state.step}" if state.step else "starts"
    steps = context.recipe.last_step
    log.info(
        "%s %s: %d steps of %d pictures (%.1f epochs), %s trained parameters",
        context.folder, verb, steps, batch_size, steps * batch_size / samples_per_epoch, f"{trained:,}",
    )  # fmt: skip


def _recorder(config: TrainConfig, context: RunContext, step: int) -> Recorder:
    """metrics.jsonl, mirrored to wandb unless that is disabled: a study is a group there, its variants are tags."""
    from geoclip.runs.metrics import Recorder, WandbRun
    from geoclip.runs.run_dir import read_provenance, to_dict
    from geoclip.studies.results import variant_tags

    run, plain = context.folder, to_dict(config)
    wandb = None
    if config.logger.mode is not LoggerMode.disabled:
        wandb = WandbRun(
            run,
            mode=config.logger.mode.value,
            project=config.logger.project,
            entity=config.logger.entity,
            name=run.name,
            config=plain | read_provenance(run),
            run_id=run.name,
            patience_s=config.logger.patience_s,
            group=config.study.name or None,
            tags=variant_tags(plain, context.choices),
            job_type="train",
        )
    return Recorder(run / "metrics.jsonl", step=step, wandb=wandb)


if __name__ == "__main__":
    run_entry_point("train", TrainConfig, main, at_end=end_sweep)
