"""Why a training run cannot start."""

from __future__ import annotations

import math
import os

from geoclip.checks.data import data_problems, gallery_problems
from geoclip.checks.encoder import encoder_problems
from geoclip.checks.location import location_problems
from geoclip.checks.loss import loss_problems
from geoclip.config import (
    ComputeConfig,
    DataKind,
    OptimConfig,
    QueueConfig,
    QueueEmbeddings,
    TrainConfig,
)


def train_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Every reason why this training run cannot start, each with its cure; empty when it can."""
    problems = [
        *data_problems(config.data, read=not config.encoder.features),
        *encoder_problems(config.encoder),
        *location_problems(config.location),
        *loss_problems(config),
        *_queue_problems(config.queue),
        *_optim_problems(config.optim),
        *gallery_problems(config.gallery, may_be_built=config.data.kind is DataKind.bluemarble),
        *_dealing_problems(config, world_size),
    ]
    for key, value in (
        ("validate_every_steps", config.validate_every_steps),
        ("validate_samples", config.validate_samples),
        ("compute.log_every_steps", config.compute.log_every_steps),
        ("compute.checkpoint_every_steps", config.compute.checkpoint_every_steps),
    ):
        if value < 1:
            problems.append(f"{key}={value} must be 1 or more")
    problems += compute_problems(config.compute)
    if config.compute.features_on_device and not config.encoder.features:
        problems.append(
            "compute.features_on_device=true needs encoder.features: pictures are decoded anew in every epoch; write "
            "features (python -m geoclip.features), or set it to null"
        )
    if config.resume not in ("auto", "never") and not os.path.exists(config.resume):
        problems.append(
            f"resume={config.resume} is neither auto nor never, nor a run's folder, nor a checkpoint's file"
        )
    if not config.name or " " in config.name:
        problems.append(f"name={config.name!r} names a folder: letters, digits, '.', '_' and '-'")
    return problems


def compute_problems(compute: ComputeConfig) -> list[str]:
    """Reasons why nothing can be computed this way."""
    problems = []
    if compute.workers < 0:
        problems.append(f"compute.workers={compute.workers} must be 0 or more")
    for key in ("keep_checkpoints", "accumulation"):
        if getattr(compute, key) < 1:
            problems.append(f"compute.{key}={getattr(compute, key)} must be 1 or more")
    if compute.max_minutes is not None and compute.max_minutes <= 0:
        problems.append(f"compute.max_minutes={compute.max_minutes} must be positive, or null for no limit")
    if compute.timeout_minutes <= 0:
        problems.append(f"compute.timeout_minutes={compute.timeout_minutes} must be positive")
    return problems


def _queue_problems(queue: QueueConfig) -> list[str]:
    problems = []
    if queue.size < 0:
        problems.append(f"queue.size={queue.size} must be 0 or more; 0 trains without a queue")
    if queue.size == 0 and queue.embeddings is not QueueEmbeddings.encoded:
        problems.append(f"queue.embeddings={queue.embeddings.value} needs a queue: queue.size is 0")
    for key in ("batch_noise_m", "queue_noise_m"):
        if not 0 <= getattr(queue, key) < 1e6:
            problems.append(f"queue.{key}={getattr(queue, key)} must lie in [0, 1000000) metres")
    return problems


def _optim_problems(optim: OptimConfig) -> list[str]:
    problems = []
    for key in ("lr", "step_gamma"):
        value = getattr(optim, key)
        if not (math.isfinite(value) and value > 0):
            problems.append(f"optim.{key}={value} must be positive")
    for key in ("batch_size", "epochs"):
        if getattr(optim, key) < 1:
            problems.append(f"optim.{key}={getattr(optim, key)} must be 1 or more")
    for key in ("encoder_lr", "swa_lr", "swa_every_steps"):
        value = getattr(optim, key)
        if value is not None and not (math.isfinite(value) and value > 0):
            problems.append(f"optim.{key}={value} must be positive, or null")
    for key in ("ema_decay", "swa_start"):
        if not 0 <= getattr(optim, key) < 1:
            problems.append(f"optim.{key}={getattr(optim, key)} must lie in [0, 1)")
    for key in ("weight_decay", "warmup_steps", "max_bad_steps"):
        if getattr(optim, key) < 0:
            problems.append(f"optim.{key}={getattr(optim, key)} must be 0 or more")
    if optim.max_steps is not None and optim.max_steps < 1:
        problems.append(f"optim.max_steps={optim.max_steps} must be 1 or more, or null for whole epochs")
    if optim.max_samples is not None and optim.max_samples < optim.batch_size:
        problems.append(
            f"optim.max_samples={optim.max_samples} must be optim.batch_size={optim.batch_size} or more, or null"
        )
    if optim.grad_clip is not None and optim.grad_clip <= 0:
        problems.append(f"optim.grad_clip={optim.grad_clip} must be positive, or null for none")
    return problems


def _dealing_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Streams deal evenly to the batch and to ranks; a rank's workers each read at least one stream."""
    streams, batch, workers = config.data.streams, config.optim.batch_size, config.compute.workers
    if streams < 1 or batch < 1:
        return []
    problems = []
    accumulation = config.compute.accumulation
    if accumulation > 1 and batch % (world_size * accumulation):
        problems.append(
            f"optim.batch_size={batch} does not divide over {world_size} ranks and compute.accumulation="
            f"{accumulation} parts"
        )
    if batch % streams:
        lower, upper = batch - batch % streams, batch - batch % streams + streams
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        problems.append(
            f"optim.batch_size={batch} does not divide over data.streams={streams}; try {nearest}, or other streams"
        )
    if streams % world_size:
        problems.append(
            f"data.streams={streams} does not divide over {world_size} ranks; "
            f"try data.streams={world_size * max(1, round(streams / world_size))}"
        )
    elif workers > streams // world_size:
        problems.append(
            f"compute.workers={workers} are more than the {streams // world_size} streams of a rank "
            f"(data.streams={streams} over {world_size} ranks); fewer workers or more streams"
        )
    return problems
