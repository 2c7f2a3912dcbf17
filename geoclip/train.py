"""Train: `python -m geoclip.train`, or `torchrun --nproc-per-node=N -m geoclip.train`. `--help` shows everything."""

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
    from geoclip.training.step import Recipe

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> float | None:
    """Check the configuration, then train (or, with check_only=true, check all that is known without training).

    Returns:
        The best GeoScore on the validation split, for a sweeper that searches.
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
    """Print what is known of a run before it trains.

    Raises:
        ConfigError: it cannot; every problem is listed.
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

    Args:
        config: what is trained.
        choices: the option that was chosen of each group, for provenance.json.

    Returns:
        The run's folder.

    Raises:
        GeoclipError: data, gallery or checkpoint cannot be used.
        Preempted: asked to stop, by a signal or the walltime; the checkpoint is written.
    """
    from geoclip.training.preemption import StopRequest

    with StopRequest(config.compute.max_minutes) as stop:  # first of all: reading millions of rows may take minutes
        run = _train_or_stop(config, choices or {}, stop)
        if in_sweep() and stop.reason().startswith("SIG"):  # it came too late for this point; no other starts
            log.warning("stopped by %s; %s is finished; rerun the command to resume the sweep", stop.reason(), run)
            stop.pass_on()
            raise Preempted(stop.reason(), 0)
        return run


def _train_or_stop(config: TrainConfig, choices: Mapping[str, str], stop: StopRequest) -> Path:
    """`train_run`, while `stop` listens to signals and the walltime."""
    from geoclip.data.features import read_record
    from geoclip.data.shards import fingerprint
    from geoclip.data.workers import start_fork_server
    from geoclip.distributed import broadcast_from_main, initialise, wait_for_all
    from geoclip.factory.data import build_gallery, build_stream_plan, open_shards
    from geoclip.factory.training import build_recipe, build_state, require_negatives, resume
    from geoclip.runs.logs import log_to_file, setup_console
    from geoclip.runs.run_dir import (
        claimed,
        fingerprint_of,
        is_finished,
        run_path,
        to_dict,
        write_identity,
        write_summary,
    )
    from geoclip.training.hooks import RunContext
    from geoclip.training.state import seed_generators

    compute = config.compute
    if compute.workers:
        start_fork_server()  # its imports take as long as what is read next
    _be_deterministic(compute.deterministic)
    world = initialise(compute.device, size=world_size_from_environment(), timeout_minutes=compute.timeout_minutes)
    setup_console(main=world.is_main)
    splits = open_shards(config.data, config.encoder, world)
    gallery = build_gallery(config.gallery)
    files = {"shards": fingerprint(splits["train"]), "gallery": gallery.sha256[:8]}
    if config.encoder.features:
        files["features"] = fingerprint_of(read_record(Path(config.encoder.features)))
    run = run_path(to_dict(config), files)
    if config.resume == "auto" and broadcast_from_main(is_finished(run), world):
        log.info("%s: already finished (to train it further, remove its summary.json)", run)
        return run
    plan = build_stream_plan(config, splits["train"])
    require_negatives(config, plan.subset)
    recipe = build_recipe(config, plan.samples, world.device)
    context = RunContext(
        folder=run,
        world=world,
        stop=stop,
        gallery=gallery,
        val_shards=splits["val"],
        files=files,
        last_step=recipe.last_step,
    )
    with claimed(run) if world.is_main else contextlib.nullcontext(), log_to_file(run, world.rank):
        seed_generators(config.seed * 1009 + world.rank)
        state = build_state(config, plan.subset, world)
        resume(config, context, state)
        if world.is_main:
            write_identity(run, to_dict(config), world.size, choices)
        _announce(run, state, recipe.last_step, plan.samples, config.optim.batch_size)
        try:
            _train(config, choices, context, state, plan, recipe)
        except Preempted as preempted:
            log.warning(
                "stopped by %s after step %d, its checkpoint written; rerun the command to resume (status %s)",
                preempted.reason, preempted.step, preempted.code,
            )  # fmt: skip
            stop.pass_on()
            raise
        if world.is_main:
            write_summary(
                run, step=state.step, samples_seen=state.samples_seen, geoscore=state.best_geoscore, files=files
            )
    wait_for_all()  # the other ranks read the summary, too
    log.info("trained: %s", run)
    return run


def _train(
    config: TrainConfig,
    choices: Mapping[str, str],
    context: RunContext,
    state: TrainState,
    plan: StreamPlan,
    recipe: Recipe,
) -> None:
    """The training itself, with what it reads and all that it writes open."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from geoclip.data.account import Account
    from geoclip.factory.training import build_batches, build_hooks, build_step
    from geoclip.training.checkpoint import CheckpointWriter
    from geoclip.training.hooks import draw_training_curves
    from geoclip.training.loop import train

    world, run = context.world, context.folder
    batches = build_batches(config, plan, world, state.step, recipe.last_step)
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.closing(batches))
        if world.is_main:
            context.recorder = opened.enter_context(_recorder(config, choices, run, state.step))
            context.writer = opened.enter_context(
                CheckpointWriter(run / "checkpoints", config.compute.keep_checkpoints)
            )
        hooks = build_hooks(config, context)
        opened.enter_context(logging_redirect_tqdm())
        step = build_step(config, state, world)
        skipped = train(state, batches, recipe, hooks, world, context.stop, step)
        bad = skipped.counts.total()
        Account(
            what="training", used=state.samples_seen - bad, skipped=skipped, unit="pictures, all epochs together,"
        ).log()
        if context.recorder:
            context.recorder.record("skipped", state.step, total=bad, reasons=dict(skipped.counts))
            draw_training_curves(run, context.recorder, state.step)


def _be_deterministic(deterministic: bool) -> None:
    """Refuse what is not the same at every start; the environment is read when CUDA starts."""
    import torch

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # asking for it imports the compiler: seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def _announce(run: Path, state: TrainState, last_step: int, samples: int, batch_size: int) -> None:
    trained = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    verb = f"resumes from step {state.step}" if state.step else "starts"
    log.info(
        "%s %s: %d steps of %d (%.1f epochs), %s trained parameters",
        run, verb, last_step, batch_size, last_step * batch_size / samples, f"{trained:,}",
    )  # fmt: skip


def _recorder(config: TrainConfig, choices: Mapping[str, str], run: Path, step: int) -> Recorder:
    """metrics.jsonl, mirrored to wandb unless that is disabled; there a study is a group, its variants are tags."""
    from geoclip.runs.metrics import Recorder, WandbRun
    from geoclip.runs.run_dir import read_provenance, to_dict
    from geoclip.studies.results import variant_tags

    wandb = None
    if config.logger.mode is not LoggerMode.disabled:
        wandb = WandbRun(
            run,
            mode=config.logger.mode.value,
            project=config.logger.project,
            entity=config.logger.entity,
            name=run.name,
            config=to_dict(config) | read_provenance(run),
            run_id=run.name,
            patience_s=config.logger.patience_s,
            group=config.study.name or None,
            tags=variant_tags(to_dict(config), choices),
            job_type="train",
        )
    return Recorder(run / "metrics.jsonl", step=step, wandb=wandb)


if __name__ == "__main__":
    run_entry_point("train", TrainConfig, main, at_end=end_sweep)
