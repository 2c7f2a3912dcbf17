"""Training: the model, its loss, its budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from geoclip.config.choices import (
    AverageKind,
    Combine,
    EncoderKind,
    Fit,
    Interpolation,
    LocationKind,
    LoggerMode,
    LossKind,
    Near,
    OptimizerKind,
    Precision,
    Projection,
    Protocol,
    QueueEmbeddings,
    QueueStart,
    ScheduleKind,
    Sphere2VecKind,
    Tta,
    Tune,
)
from geoclip.config.data import DataConfig, GalleryConfig


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """The image encoder: a backbone of `transformers`, then the two-layer MLP of GeoCLIP."""

    name: str = MISSING
    kind: EncoderKind = MISSING
    licence: str = ""  # of the pretrained weights
    repo: str = ""  # Hub id or local folder; resnet, vit: a run or .pt file, empty for random weights
    features: str = ""  # folder that geoclip.features wrote: training reads these instead of pictures
    image_px: int = MISSING
    resize_px: int | None = None  # fit=crop: shorter side before the central square; null: image_px
    fit: Fit = Fit.crop
    interpolation: Interpolation = Interpolation.bicubic
    mean: list[float] = field(default_factory=lambda: [0.48145466, 0.4578275, 0.40821073])
    std: list[float] = field(default_factory=lambda: [0.26862954, 0.26130258, 0.27577711])
    prediction_mean: list[float] | None = None  # of geoclip.predict; null: mean, as everywhere
    prediction_std: list[float] | None = None
    tune: Tune = Tune.full  # what of the backbone is trained; optim.encoder_lr is its learning rate
    last_blocks: int = 2  # tune=last_blocks: so many transformer blocks, or stages of the ResNet
    lora_rank: int = 16  # tune=lora
    lora_alpha: float = 32.0
    checkpoint_activations: bool = False  # of a trained backbone: less memory, one more forward pass
    feature_dim: int = MISSING
    hidden_dim: int = MISSING
    stem_dim: int = 16  # resnet: channels after the stem
    widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    depths: list[int] = field(default_factory=lambda: [1, 1, 1, 1])
    patch_px: int = 8  # vit
    blocks: int = 4
    heads: int = 4

    @property
    def frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return self.tune is Tune.frozen


@dataclass(kw_only=True, slots=True)
class LocationConfig:
    """The location encoder: degrees in, embedding out."""

    name: str = MISSING
    kind: LocationKind = LocationKind.fourier
    projection: Projection = Projection.equal_earth  # fourier, direct
    sigmas: list[float] | None = field(default_factory=lambda: [1.0, 16.0, 256.0])
    sigma_min: float = 1.0  # with sigmas=null: so many scales, evenly spaced in log2
    sigma_max: float = 256.0
    scales: int = 3  # sphere2vec too
    combine: Combine = Combine.sum
    share_mlp: bool = False  # one MLP for all scales
    learn_frequencies: bool = False
    frequencies: int = 256
    hidden_dim: int = 1024
    depth: int = 3
    embedding_dim: int = 512
    degree: int = 10  # spherical_harmonics: Legendre polynomials below this degree
    sphere2vec: Sphere2VecKind = Sphere2VecKind.sphere_c_plus
    min_radius_km: float = 10.0  # sphere2vec: the finest scale
    init: str = ""  # warm start: official, or a run's folder or checkpoint
    freeze_init: bool = False  # the warm branches are not trained


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """What is minimised."""

    name: str = MISSING
    kind: LossKind = LossKind.one_way
    views: int = 1  # augmented views of each picture in a step
    mask_same_place: bool = True  # a candidate at the picture's own coordinates is no negative
    near: Near | None = None  # what becomes of candidates that are nearly right
    near_radius_km: float = 25.0
    hard_negatives: int = 0  # per picture, displaced from its own place
    hard_radius_km: float = 100.0
    temperature: float = 0.07
    learn_temperature: bool = True
    logit_scale_max: float | None = 100.0


@dataclass(kw_only=True, slots=True)
class QueueConfig:
    """Past coordinates as further negatives, and the noise on coordinates."""

    size: int = 4096
    start: QueueStart = QueueStart.train
    batch_noise_m: float = 150.0
    queue_noise_m: float = 1000.0
    embeddings: QueueEmbeddings = (
        QueueEmbeddings.encoded
    )  # detached and stale are faster, and another gradient


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Budget, optimiser and schedule."""

    kind: OptimizerKind = OptimizerKind.adam
    lr: float = 3e-5
    encoder_lr: float | None = None  # of a trained backbone, at the schedule's start; null: lr
    weight_decay: float = 1e-6
    batch_size: int = 512  # global: over all ranks
    epochs: int = 10
    max_steps: int | None = None  # ends the run earlier; the schedule ends there too
    max_samples: int | None = None  # the same in samples: a budget that does not depend on the batch
    schedule: ScheduleKind = ScheduleKind.step
    step_gamma: float = 0.87  # step: lr factor per epoch
    warmup_steps: int = 0  # cosine
    grad_clip: float | None = None
    average: AverageKind | None = None  # of the weights, for validation and the best checkpoint
    ema_decay: float = 0.999  # per step
    swa_start: float = 0.8  # share of the steps before the first weights are averaged
    swa_every_steps: int | None = None  # null: once per epoch
    swa_lr: float | None = None  # constant from swa_start on; null: the schedule goes on
    max_bad_steps: int = 10  # in a row without a finite gradient: more end the run


@dataclass(kw_only=True, slots=True)
class ComputeConfig:
    """Where and how fast, never what: nothing here changes a run's identity."""

    device: str = "auto"
    precision: Precision = Precision.auto  # of matrix products; auto: bfloat16 on a GPU, float32 elsewhere
    workers: int = 1  # per rank; 0 reads in the training process
    log_every_steps: int = 20
    checkpoint_every_steps: int = 200
    keep_checkpoints: int = 2  # of the newest, beside the best
    accumulation: int = (
        1  # parts that a trained backbone takes a rank's batch in: less memory, the same gradient
    )
    compile: bool = (
        False  # the layers, by torch.compile: seconds on a GPU, minutes on a CPU, before the first step
    )
    features_on_device: bool | None = (
        None  # encoder.features stay in its memory; null: on a GPU, where they fit
    )
    cuda_graph: bool = True  # the step from features is recorded once and replayed, on one GPU
    deterministic: bool = (
        False  # the same bits at every start on the same machine, slower; see docs/reproducibility.md
    )
    max_minutes: float | None = None  # then checkpoint and stop, as on SIGTERM
    timeout_minutes: float = 30.0  # a rank that does not answer for so long ends the run


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """wandb, a mirror of metrics.jsonl. auto: online when logged in, offline otherwise."""

    mode: LoggerMode = LoggerMode.auto
    project: str = "geoclip"
    entity: str | None = None
    patience_s: float = 30.0  # at the end of a run; then wandb is left behind


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """Which study a run is part of; nothing here changes the run itself."""

    name: str = ""  # the folder's in experiments/, without its number; empty: of none
    by: list[str] = field(
        default_factory=list
    )  # what its variants differ in: keys, groups, or eval.FIELD of an evaluation
    baseline: str = ""  # the variant that the others are compared with
    benchmarks: list[str] = field(default_factory=list)  # on which its finished runs are evaluated, once
    tta: list[Tta] = field(default_factory=lambda: [Tta.single])
    galleries: list[str] = field(default_factory=list)  # CSVs; empty: the run's own


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    name: str = MISSING
    seed: int = 0
    runs_dir: str = "runs"
    check_only: bool = False  # read and check all that the run needs, print what is known of it, and stop
    resume: str = "auto"  # this run's newest checkpoint; never; or a run's folder or checkpoint to start from
    force_resume: bool = False  # from a checkpoint of another configuration
    validate_every_steps: int = 200
    validate_samples: int = 2000  # at most so many of the validation split
    protocol: Protocol = Protocol.sphere  # of the validation's distances
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
    """Which frozen encoder runs over which data."""

    data: DataConfig = MISSING
    encoder: EncoderConfig = MISSING
    compute: ComputeConfig = MISSING
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    views: int | None = None  # augmented views; null: 4, or none where data are not augmented
    batch_size: int = 64  # pictures at a time, each in all its views
    seed: int = 0  # of the augmentation
    root: str = "features"
