"""What cannot run, and why: pure functions from a configuration to sentences that name key, value and cure."""

from __future__ import annotations

import math
import os
from pathlib import Path

from geoclip.config import (
    BenchmarkKind,
    BlueMarbleConfig,
    DataConfig,
    DataKind,
    EncoderConfig,
    EncoderKind,
    EvaluateConfig,
    GalleryConfig,
    GalleryKind,
    LocationConfig,
    ModelSourceConfig,
    OptimConfig,
    PredictConfig,
    QueueConfig,
    ShardsConfig,
    TrainConfig,
)

MP16_CURE = (
    "set MP16_SHARDS or data.root to the folder of the MP16 tar shards (key.jpg + key.json with lat, lon in "
    "each tar); README.md, section 'Train on MP16', says how to build them"
)


def train_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Every reason why this training run cannot start, each with its cure; empty when it can."""
    problems = [
        *data_problems(config.data),
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
    if config.compute.workers < 0:
        problems.append(f"compute.workers={config.compute.workers} must be 0 or more")
    if not config.name or any(character in config.name for character in "/\\ "):
        problems.append(f"name={config.name!r} names a folder: letters, digits, '.', '_' and '-'")
    return problems


def data_problems(data: DataConfig) -> list[str]:
    """Reasons why these shards cannot be read."""
    problems = []
    if not 0 < data.fraction <= 1:
        problems.append(f"data.fraction={data.fraction} must lie in (0, 1], e.g. data.fraction=0.2 for 20 %")
    if data.streams < 1:
        problems.append(f"data.streams={data.streams} must be 1 or more")
    if data.shuffle_buffer < 1:
        problems.append(
            f"data.shuffle_buffer={data.shuffle_buffer} must be 1 or more; 1 keeps the shards' order"
        )
    if not 0 < data.crop_scale_min <= 1:
        problems.append(f"data.crop_scale_min={data.crop_scale_min} must lie in (0, 1]")
    if data.crop_ratio < 1:
        problems.append(f"data.crop_ratio={data.crop_ratio} must be 1 or more")
    for key, value in (("color_jitter", data.color_jitter), ("grayscale", data.grayscale)):
        if not 0 <= value <= 1:
            problems.append(f"data.{key}={value} is a probability in [0, 1]")
    if data.kind is DataKind.bluemarble:
        problems += blue_marble_problems(data.bluemarble, "data.bluemarble")
    if data.kind is DataKind.shards:
        if not data.root:
            problems.append(f"data={data.name} has no shards: {MP16_CURE}")
        elif "://" not in data.root and not Path(data.root).is_dir():
            problems.append(f"data.root={data.root} is no folder: {MP16_CURE}")
    return problems


def blue_marble_problems(views: BlueMarbleConfig, prefix: str) -> list[str]:
    """Reasons why these views cannot be cut."""
    problems = []
    for key in ("size_px", "gallery_size", "val_size", "test_size", "unseen_size", "samples_per_shard"):
        if getattr(views, key) < 1:
            problems.append(f"{prefix}.{key}={getattr(views, key)} must be 1 or more")
    if not 0 < views.span_km <= 20_000:
        problems.append(f"{prefix}.span_km={views.span_km} must lie in (0, 20000] km")
    if not 1 <= views.jpeg_quality <= 100:
        problems.append(f"{prefix}.jpeg_quality={views.jpeg_quality} must lie in 1 … 100")
    return problems


def shards_problems(config: ShardsConfig) -> list[str]:
    """Every reason why these shards cannot be built."""
    problems = blue_marble_problems(config.bluemarble, "bluemarble")
    if not config.root:
        problems.append("root='' must name the folder to build")
    return problems


def evaluate_problems(config: EvaluateConfig) -> list[str]:
    """Every reason why this evaluation cannot start."""
    problems = _model_source_problems(config)
    benchmark = config.benchmark
    if config.image_features:
        if not os.path.isfile(config.image_features):
            problems.append(f"image_features={config.image_features} is no file")
    elif not benchmark.root:
        variable = f"{benchmark.variable}=FOLDER or " if benchmark.variable else ""
        problems.append(
            f"benchmark={benchmark.name} has no photographs: set {variable}benchmark.root=FOLDER to the folder that "
            f"holds them and their CSV. {benchmark.source}"
        )
    elif not os.path.isdir(benchmark.root):
        cure = (
            "build it: python -m geoclip.shards"
            if benchmark.kind is BenchmarkKind.shards
            else benchmark.source
        )
        problems.append(f"benchmark.root={benchmark.root} is no folder; {cure}")
    if config.batch_size < 1:
        problems.append(f"batch_size={config.batch_size} must be 1 or more")
    return problems


def predict_problems(config: PredictConfig) -> list[str]:
    """Every reason why this prediction cannot start."""
    problems = _model_source_problems(config)
    if not os.path.exists(config.image):
        problems.append(f"image={config.image} is neither a file nor a folder")
    elif config.output and _lies_among_pictures(Path(config.output).resolve(), Path(config.image).resolve()):
        problems.append(
            f"output={config.output} lies among the pictures: maps would be taken for them and their .json files "
            "overwritten; name another folder"
        )
    for key, least in (("top_k", 1), ("batch_size", 1), ("maps", 0)):
        if getattr(config, key) < least:
            problems.append(f"{key}={getattr(config, key)} must be {least} or more")
    return problems


def _lies_among_pictures(output: Path, image: Path) -> bool:
    return output.is_relative_to(image) if image.is_dir() else output == image.parent


def _model_source_problems(config: ModelSourceConfig) -> list[str]:
    problems = []
    if config.checkpoint not in ("latest", "official") and not os.path.exists(config.checkpoint):
        problems.append(
            f"checkpoint={config.checkpoint} is neither a run's folder nor a .pt file; `latest` is the newest run "
            f"in {config.runs_dir}/, `official` the released model"
        )
    if config.gallery.kind is not GalleryKind.own:
        problems += gallery_problems(config.gallery)
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
            if encoder.frozen:
                problems.append(
                    "encoder.frozen=true would keep a random backbone: encoder.kind=resnet is trained"
                )
    return problems


def location_problems(location: LocationConfig) -> list[str]:
    """Reasons why this location encoder cannot be built."""
    problems = []
    if not location.sigmas:
        problems.append("location.sigmas=[] needs at least one scale, e.g. location.sigmas=[1,16,256]")
    if any(not (math.isfinite(sigma) and sigma > 0) for sigma in location.sigmas):
        problems.append(f"location.sigmas={location.sigmas} must all be positive numbers, e.g. [1,16,256]")
    for key in ("frequencies", "hidden_dim", "depth", "embedding_dim"):
        if getattr(location, key) < 1:
            problems.append(f"location.{key}={getattr(location, key)} must be 1 or more")
    return problems


def gallery_problems(gallery: GalleryConfig, *, may_be_built: bool = False) -> list[str]:
    """Reasons why this gallery cannot be read; `may_be_built` allows a file that the demo's data will bring."""
    if gallery.kind is GalleryKind.own:
        return [
            f"gallery={gallery.name} is for evaluation; a run is trained with gallery=bluemarble, released_100k or csv"
        ]
    if gallery.kind is GalleryKind.released or may_be_built:
        return []
    if not gallery.path:
        return [f"gallery.path='' of gallery={gallery.name} must name a CSV with the columns LAT, LON"]
    if not os.path.isfile(gallery.path):
        return [f"gallery.path={gallery.path} is no file; it must be a CSV with the columns LAT, LON"]
    return []


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
    for key in ("lr", "temperature", "step_gamma"):
        value = getattr(optim, key)
        if not (math.isfinite(value) and value > 0):
            problems.append(f"optim.{key}={value} must be positive")
    for key in ("batch_size", "epochs"):
        if getattr(optim, key) < 1:
            problems.append(f"optim.{key}={getattr(optim, key)} must be 1 or more")
    for key in ("weight_decay", "warmup_steps"):
        if getattr(optim, key) < 0:
            problems.append(f"optim.{key}={getattr(optim, key)} must be 0 or more")
    if optim.max_steps is not None and optim.max_steps < 1:
        problems.append(f"optim.max_steps={optim.max_steps} must be 1 or more, or null for whole epochs")
    if optim.grad_clip is not None and optim.grad_clip <= 0:
        problems.append(f"optim.grad_clip={optim.grad_clip} must be positive, or null for none")
    if optim.logit_scale_max < 1:
        problems.append(f"optim.logit_scale_max={optim.logit_scale_max} must be 1 or more")
    return problems


def _dealing_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Streams deal evenly to the batch and to ranks; a rank's workers each read at least one stream."""
    streams, batch, workers = config.data.streams, config.optim.batch_size, config.compute.workers
    if streams < 1 or batch < 1:
        return []
    problems = []
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
