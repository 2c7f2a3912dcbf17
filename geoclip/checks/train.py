"""Why a training run cannot start."""

from __future__ import annotations

import math
import os

from geoclip.checks.data import data_problems, gallery_problems
from geoclip.config import (
    ComputeConfig,
    DataKind,
    EncoderConfig,
    EncoderKind,
    LocationConfig,
    OptimConfig,
    QueueConfig,
    TrainConfig,
    Tune,
)


def train_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Every reason why this training run cannot start, each with its cure; empty when it can."""
    problems = [
        *data_problems(config.data, read=not config.encoder.features),
        *encoder_problems(config.encoder),
        *location_problems(config.location),
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
    if config.resume not in ("auto", "never") and not os.path.exists(config.resume):
        problems.append(
            f"resume={config.resume} is neither auto nor never, nor a run's folder, nor a checkpoint's file"
        )
    if not config.name or any(character in config.name for character in "/\\ "):
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


def encoder_problems(encoder: EncoderConfig) -> list[str]:
    """Reasons why this image encoder cannot be built."""
    problems = []
    for key in ("image_px", "feature_dim", "hidden_dim", "stem_dim"):
        if getattr(encoder, key) < 1:
            problems.append(f"encoder.{key}={getattr(encoder, key)} must be 1 or more")
    for key in ("mean", "std"):
        if len(getattr(encoder, key)) != 3:
            problems.append(f"encoder.{key}={getattr(encoder, key)} must have three values: red, green, blue")
    if any(value <= 0 for value in encoder.std):
        problems.append(f"encoder.std={encoder.std} must be positive")
    if encoder.features and not os.path.isdir(encoder.features):
        problems.append(
            f"encoder.features={encoder.features} is no folder; write it: python -m geoclip.features data=… encoder=…"
        )
    if encoder.features and not encoder.frozen:
        problems.append(f"encoder.features are of a frozen encoder, but encoder={encoder.name} is trained")
    for key in ("last_blocks", "lora_rank", "lora_alpha"):
        if getattr(encoder, key) <= 0:
            problems.append(f"encoder.{key}={getattr(encoder, key)} must be positive")
    if encoder.frozen and encoder.checkpoint_activations:
        problems.append(
            "encoder.checkpoint_activations=true is for a trained backbone, but encoder.tune=frozen"
        )
    match encoder.kind:
        case EncoderKind.clip:
            if not encoder.repo:
                problems.append("encoder.repo='' must name a Hub id or a local folder of CLIP weights")
        case EncoderKind.resnet:
            if len(encoder.widths) != len(encoder.depths) or not encoder.widths:
                problems.append(
                    f"encoder.widths={encoder.widths} and encoder.depths={encoder.depths} must be equally long"
                )
            elif min(*encoder.widths, *encoder.depths) < 1:
                problems.append("encoder.widths and encoder.depths must be 1 or more")
            elif encoder.feature_dim != encoder.widths[-1]:
                problems.append(
                    f"encoder.feature_dim={encoder.feature_dim} must equal the last of "
                    f"encoder.widths={encoder.widths}, which the backbone puts out"
                )
            if encoder.tune is Tune.lora or encoder.checkpoint_activations:
                problems.append(
                    f"encoder={encoder.name} has no attention: encoder.tune=lora and "
                    "encoder.checkpoint_activations=true are for transformers such as encoder=clip_vit_l14"
                )
            if encoder.tune is Tune.last_blocks and encoder.last_blocks > len(encoder.depths):
                problems.append(
                    f"encoder.last_blocks={encoder.last_blocks} are more than the {len(encoder.depths)} stages of "
                    f"encoder.depths={encoder.depths}"
                )
            if encoder.frozen and not encoder.repo:
                problems.append(
                    "encoder.tune=frozen would keep a random backbone; name the run whose backbone it is: "
                    "encoder.repo=runs/NAME"
                )
            if encoder.repo and not os.path.exists(encoder.repo):
                problems.append(f"encoder.repo={encoder.repo} is neither a run's folder nor a .pt file")
    return problems


def location_problems(location: LocationConfig) -> list[str]:
    """Reasons why this location encoder cannot be built."""
    problems = []
    if location.sigmas is not None and not location.sigmas:
        problems.append("location.sigmas=[] needs at least one scale, e.g. location.sigmas=[1,16,256]")
    if any(not (math.isfinite(sigma) and sigma > 0) for sigma in location.sigmas or ()):
        problems.append(f"location.sigmas={location.sigmas} must all be positive numbers, e.g. [1,16,256]")
    for key in ("frequencies", "hidden_dim", "depth", "embedding_dim"):
        if getattr(location, key) < 1:
            problems.append(f"location.{key}={getattr(location, key)} must be 1 or more")
    return problems


def _queue_problems(queue: QueueConfig) -> list[str]:
    problems = []
    if queue.size < 0:
        problems.append(f"queue.size={queue.size} must be 0 or more; 0 trains without a queue")
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
