"""Training (queue, optimiser, compute, logger, study) and feature extraction. Schemas, then rules."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from omegaconf import MISSING

from geoclip.config.choices import (
    AverageKind,
    DataKind,
    LoggerMode,
    LossKind,
    Near,
    OptimizerKind,
    Precision,
    Protocol,
    QueueEmbeddings,
    QueueStart,
    ScheduleKind,
    Tta,
)
from geoclip.config.data import DataConfig, GalleryConfig, data_problems, gallery_problems
from geoclip.config.keys import device_key, key, name_key, seed_key
from geoclip.config.model import (
    EncoderConfig,
    LocationConfig,
    LossConfig,
    encoder_problems,
    location_problems,
    loss_problems,
)


@dataclass(kw_only=True, slots=True)
class QueueConfig:
    """Past coordinates as further negatives, and the noise on coordinates."""

    size: int = key(4096, "number of past coordinates; 0: no queue", at_least=0)
    start: QueueStart = key(
        QueueStart.train, "coordinates at step 0; train: of training samples; released: near (0, 0), as GeoCLIP's code"
    )
    batch_noise_m: float = key(
        150.0, "Gaussian noise on the batch's coordinates, per axis", at_least=0, below=1e6, unit="m"
    )
    queue_noise_m: float = key(
        1000.0, "Gaussian noise on the queue's coordinates, per axis", at_least=0, below=1e6, unit="m"
    )
    embeddings: QueueEmbeddings = key(
        QueueEmbeddings.encoded,
        "encoded: the queue is encoded at every step, with gradient; detached: without gradient; stale: embeddings "
        "are those of the step that added them; the last two are faster, and change the gradient",
    )


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Budget, optimiser and schedule."""

    kind: OptimizerKind = key(OptimizerKind.adam, "optimiser")
    lr: float = key(3e-5, "learning rate", above=0)
    encoder_lr: float | None = key(None, "learning rate of a trained backbone, scheduled like lr; null: lr", above=0)
    weight_decay: float = key(1e-6, "factor of the optimiser's weight decay", at_least=0)
    batch_size: int = key(512, "global batch size, over all ranks", at_least=1, unit="samples")
    epochs: int = key(10, "passes over the training samples", at_least=1)
    max_steps: int | None = key(None, "limit of run and schedule; null: all epochs", at_least=1, unit="steps")
    max_samples: int | None = key(None, "same limit, counted in samples; null: no limit", at_least=1, unit="samples")
    schedule: ScheduleKind = key(
        ScheduleKind.step, "learning rate; step: a factor per epoch; cosine: warm-up, then to 0"
    )
    step_gamma: float = key(0.87, "schedule=step: factor of the learning rate per epoch", above=0)
    warmup_steps: int = key(0, "schedule=cosine: length of the linear warm-up", at_least=0, unit="steps")
    grad_clip: float | None = key(None, "clip the gradient to this norm; null: no clipping", above=0)
    average: AverageKind | None = key(None, "average of weights, for validation and best checkpoint; null: none")
    ema_decay: float = key(0.999, "average=ema: decay of the average per step", at_least=0, below=1)
    swa_start: float = key(0.8, "average=swa: share of the steps before averaging begins", at_least=0, below=1)
    swa_every_steps: int | None = key(
        None, "average=swa: averaging interval; null: one epoch", at_least=1, unit="steps"
    )
    swa_lr: float | None = key(None, "average=swa: constant learning rate from swa_start; null: as scheduled", above=0)
    max_bad_steps: int = key(10, "tolerated consecutive steps without a finite gradient", at_least=0, unit="steps")


@dataclass(kw_only=True, slots=True)
class ComputeConfig:
    """Devices, speed and intervals. None of these keys is part of a run's identity."""

    device: str = device_key()
    precision: Precision = key(Precision.auto, "type of matrix products; auto: bfloat16 on a GPU, float32 elsewhere")
    workers: int = key(1, "reader processes per rank; 0: read in the training process", at_least=0)
    log_every_steps: int = key(20, "interval of logged metrics", at_least=1, unit="steps")
    checkpoint_every_steps: int = key(200, "interval of checkpoints", at_least=1, unit="steps")
    keep_checkpoints: int = key(2, "number of newest checkpoints to keep, in addition to the best", at_least=1)
    accumulation: int = key(
        1, "number of parts in which a trained backbone processes a rank's batch, to save memory", at_least=1
    )
    compile: bool = key(False, "torch.compile the layers: delays the first step by seconds (GPU) or minutes (CPU)")
    features_on_device: bool | None = key(
        None, "load encoder.features into device memory; null: if they fit half of a GPU's free memory"
    )
    cuda_graph: bool = key(True, "on one GPU, training on features: record the step as a CUDA graph and replay it")
    deterministic: bool = key(False, "bit-identical runs on the same machine, slower: docs/reproducibility.md")
    max_minutes: float | None = key(
        None, "write a checkpoint and stop after this time; null: no limit", above=0, unit="minutes"
    )
    timeout_minutes: float = key(30.0, "longest wait for a rank or reader; then the run fails", above=0, unit="minutes")


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """wandb, which receives a copy of metrics.jsonl."""

    mode: LoggerMode = key(LoggerMode.auto, "auto: online if logged in, else offline")
    project: str = key("geoclip", "wandb project")
    entity: str | None = key(None, "wandb user or team; null: the default one")
    patience_s: float = key(30.0, "longest wait for wandb at the end of a run", at_least=0, unit="s")


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """The study that a run belongs to. None of these keys changes the run itself."""

    name: str = name_key("name of the study: its folder in experiments/ without the number; empty: no study", "")
    by: list[str] = key([], "keys, groups, or eval.FIELD (a field of an evaluation) in which the variants differ")
    baseline: str = key("", "label of the variant that the others are compared with")
    benchmarks: list[str] = key([], "benchmarks on which finished runs are evaluated")
    tta: list[Tta] = key([Tta.single], "test-time augmentations used in these evaluations")
    galleries: list[str] = key([], "CSV files of the galleries in these evaluations; empty: the run's own gallery")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    name: str = name_key("first part of the run folder's name")
    seed: int = seed_key("of weights, sample order, augmentation and noise")
    runs_dir: str = key("runs", "folder that contains the run folders")
    check_only: bool = key(False, "check everything that the run needs, print a summary, and stop")
    resume: str = key(
        "auto", "auto: this run's newest checkpoint; never; or the run folder or checkpoint to start from"
    )
    force_resume: bool = key(False, "resume also from a checkpoint of another configuration")
    validate_every_steps: int = key(200, "interval of validation", at_least=1, unit="steps")
    validate_samples: int = key(2000, "largest number of validation samples", at_least=1, unit="samples")
    protocol: Protocol = key(Protocol.sphere, "validation distances; sphere: great circles; released: WGS 84 geodesics")
    data: DataConfig = MISSING
    encoder: EncoderConfig = MISSING
    location: LocationConfig = MISSING
    queue: QueueConfig = MISSING
    loss: LossConfig = MISSING
    optim: OptimConfig = MISSING
    compute: ComputeConfig = MISSING
    logger: LoggerConfig = MISSING
    gallery: GalleryConfig = MISSING
    study: StudyConfig = field(default_factory=StudyConfig)


@dataclass(kw_only=True, slots=True)
class FeaturesConfig:
    """The frozen encoder and the data from which features are extracted."""

    data: DataConfig = MISSING
    encoder: EncoderConfig = MISSING
    compute: ComputeConfig = MISSING
    splits: list[str] = name_key("splits to extract features of", ["train", "val"])
    views: int | None = key(
        None, "augmented views per picture; 0: evaluation view only; null: 4, or 0 without augmentation", at_least=0
    )
    batch_size: int = key(64, "pictures per batch, each in all its views", at_least=1, unit="pictures")
    seed: int = seed_key("of the augmentation")
    root: str = key("features", "folder that contains the feature folders")


def train_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Every reason why this training run cannot start, each with its fix; empty when it can."""
    problems = [
        *data_problems(config.data, read=not config.encoder.features),
        *encoder_problems(config.encoder),
        *location_problems(config.location),
        *loss_problems(config.loss),
        *_negatives_problems(config),
        *gallery_problems(config.gallery, may_be_built=config.data.kind is DataKind.bluemarble),
        *_batch_problems(config, world_size),
    ]
    queue, optim = config.queue, config.optim
    if queue.size == 0 and queue.embeddings is not QueueEmbeddings.encoded:
        problems.append(f"queue.embeddings={queue.embeddings.value}: needs a queue, but queue.size=0")
    if optim.max_samples is not None and optim.max_samples < optim.batch_size:
        problems.append(
            f"optim.max_samples={optim.max_samples}: must be optim.batch_size={optim.batch_size} or more, or null"
        )
    if config.compute.features_on_device and not config.encoder.features:
        problems.append(
            "compute.features_on_device=true: needs encoder.features, because pictures are decoded in every epoch; "
            "write features (python -m geoclip.features), or set it to null"
        )
    if config.resume not in ("auto", "never") and not os.path.exists(config.resume):
        problems.append(f"resume={config.resume}: must be auto, never, a run folder or a checkpoint file")
    if not config.name or " " in config.name:
        problems.append(f"name={config.name!r}: must name a folder: letters, digits, '.', '_' and '-'")
    return problems


def features_problems(config: FeaturesConfig) -> list[str]:
    """Every reason why features of this data cannot be extracted, each with its fix."""
    problems = [*data_problems(config.data), *encoder_problems(config.encoder)]
    if not config.encoder.frozen:
        problems.append(
            f"encoder={config.encoder.name}: is trained, so that its features change; choose a frozen one: "
            "encoder=clip_vit_l14, or encoder=resnet_tiny_frozen encoder.repo=RUN"
        )
    if config.encoder.features:
        problems.append(f"encoder.features={config.encoder.features}: is for training; features are made from pictures")
    if not config.splits:
        problems.append("splits=[]: must name a split; training needs [train,val]")
    return problems


def _negatives_problems(config: TrainConfig) -> list[str]:
    """Reasons why the loss has no negatives, or not the intended ones."""
    loss, batch, queue = config.loss, config.optim.batch_size, config.queue.size
    problems = []
    if loss.views > 1 and not config.encoder.features and not config.data.augments:
        problems.append(
            f"loss.views={loss.views}: all views are the same picture, because data={config.data.name} is not "
            "augmented; set data.crop_scale_min, data.flip or data.color_jitter"
        )
    if batch == 1 and queue == 0 and loss.hard_negatives == 0:
        problems.append(
            "optim.batch_size=1: with queue.size=0 and loss.hard_negatives=0 a picture has no negatives and the loss "
            "is 0; set optim.batch_size=2 or more, or a queue"
        )
    elif batch == 1 and loss.kind is LossKind.symmetric:
        problems.append(
            "optim.batch_size=1: with loss=symmetric a location has no negatives and half of the loss is 0; set "
            "optim.batch_size=2 or more, or loss=one_way"
        )
    if loss.near is Near.mask and loss.hard_negatives > 0 and loss.near_radius_km > 2 * loss.hard_radius_km:
        problems.append(
            f"loss.near_radius_km={loss.near_radius_km:g}: with loss.near=mask it masks all loss.hard_negatives="
            f"{loss.hard_negatives}, which are at most 2 × loss.hard_radius_km={loss.hard_radius_km:g} km away; lower "
            "it or raise loss.hard_radius_km"
        )
    return problems


def _batch_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Reasons why the batch does not divide over streams, ranks and workers."""
    streams, batch, workers = config.data.streams, config.optim.batch_size, config.compute.workers
    accumulation = config.compute.accumulation
    if min(streams, batch, accumulation) < 1:
        return []
    problems = []
    if accumulation > 1 and batch % (world_size * accumulation):
        problems.append(
            f"optim.batch_size={batch}: does not divide over {world_size} ranks and compute.accumulation="
            f"{accumulation} parts"
        )
    if batch % streams:
        lower, upper = batch - batch % streams, batch - batch % streams + streams
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        problems.append(
            f"optim.batch_size={batch}: does not divide over data.streams={streams}; try {nearest}, or other streams"
        )
    if streams % world_size:
        problems.append(
            f"data.streams={streams}: does not divide over {world_size} ranks; "
            f"try data.streams={world_size * max(1, round(streams / world_size))}"
        )
    elif workers > streams // world_size:
        problems.append(
            f"compute.workers={workers}: is more than the {streams // world_size} streams of a rank "
            f"(data.streams={streams} over {world_size} ranks); use fewer workers or more streams"
        )
    return problems
