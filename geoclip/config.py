"""Every configuration dataclass, registered once. `typed` turns what Hydra composed into checked dataclasses.

Below the entry points nobody sees Hydra or OmegaConf. Enums stand for choices because OmegaConf refuses
`Literal`; their values are what the user writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.conf_dir import conf_dir


class ConfigError(SystemExit):
    """A configuration that cannot run. Printed without a traceback; the process ends with status 1."""

    def __init__(self, problems: list[str], title: str = "this configuration cannot run") -> None:
        self.problems = problems
        super().__init__("\n".join([f"geoclip: {title}", *(f"  - {problem}" for problem in problems)]))


class DataKind(Enum):
    bluemarble = "bluemarble"
    shards = "shards"


class EncoderKind(Enum):
    clip = "clip"
    resnet = "resnet"


class Tune(Enum):
    frozen = "frozen"
    last_blocks = "last_blocks"
    lora = "lora"
    full = "full"


class AverageKind(Enum):
    ema = "ema"
    swa = "swa"


class OptimizerKind(Enum):
    adam = "adam"
    adamw = "adamw"


class ScheduleKind(Enum):
    step = "step"
    cosine = "cosine"


class QueueStart(Enum):
    sphere = "sphere"
    train = "train"


class Precision(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class LoggerMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class GalleryKind(Enum):
    own = "own"
    file = "file"
    released = "released"


class BenchmarkKind(Enum):
    shards = "shards"
    photos = "photos"


class PlacesSource(Enum):
    released_100k = "released_100k"
    csv = "csv"
    shards = "shards"


class ShardSource(Enum):
    bluemarble = "bluemarble"
    csv = "csv"
    wds = "wds"


BLUE_MARBLE_ROOT = "data/bluemarble"  # the embedded default's, which no other data set may take


@dataclass(kw_only=True, slots=True)
class BlueMarbleConfig:
    """How the embedded default's views are cut; what is on disk must have been built with the same numbers."""

    size_px: int = 48
    span_km: float = 1000.0  # side of a view
    gallery_size: int = 24_000
    val_size: int = 2_000
    test_size: int = 2_000
    unseen_size: int = 2_000  # at least so many, in whole 5° cells without a training view
    samples_per_shard: int = 4_000
    jpeg_quality: int = 92
    seed: int = 0


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Training and validation shards, and how they are read."""

    name: str = MISSING
    kind: DataKind = MISSING
    root: str = MISSING  # folder of the splits, or empty when nothing is set
    train: str = "train"  # below root: a folder of shards, or a pattern such as mp-16-{000000..000393}.tar
    val: str = "val"
    fraction: float = 1.0
    streams: int = 16  # the canonical streams that a global batch is dealt from; see data/stream.py
    shuffle_buffer: int = 1000  # samples held per stream
    max_bad_fraction: float = 0.05  # of the pictures: more broken ones end the run
    crop_scale_min: float = 1.0  # smallest area share of the random crop; 1 leaves the image whole
    crop_ratio: float = 1.0  # the crop's aspect ratio lies in [1/ratio, ratio]
    flip: bool = False
    color_jitter: float = 0.0  # probability of (brightness .4, contrast .4, saturation .4, hue .1)
    grayscale: float = 0.0  # probability
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """The image encoder: a backbone of `transformers`, then the two-layer MLP of GeoCLIP."""

    name: str = MISSING
    kind: EncoderKind = MISSING
    repo: str = (
        ""  # clip: Hub id or local folder; resnet: a run's folder or .pt file, empty for random weights
    )
    features: str = ""  # folder that geoclip.features wrote: training reads these instead of pictures
    image_px: int = MISSING
    mean: list[float] = field(default_factory=lambda: [0.48145466, 0.4578275, 0.40821073])
    std: list[float] = field(default_factory=lambda: [0.26862954, 0.26130258, 0.27577711])
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

    @property
    def frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return self.tune is Tune.frozen


@dataclass(kw_only=True, slots=True)
class LocationConfig:
    """The location encoder: one branch of random Fourier features and an MLP per sigma, summed."""

    name: str = MISSING
    sigmas: list[float] = field(default_factory=lambda: [1.0, 16.0, 256.0])
    frequencies: int = 256
    hidden_dim: int = 1024
    depth: int = 3
    embedding_dim: int = 512


@dataclass(kw_only=True, slots=True)
class QueueConfig:
    """Past coordinates as further negatives, and the noise on coordinates."""

    size: int = 4096
    start: QueueStart = QueueStart.train
    batch_noise_m: float = 150.0
    queue_noise_m: float = 1000.0


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
    schedule: ScheduleKind = ScheduleKind.step
    step_gamma: float = 0.87  # step: lr factor per epoch
    warmup_steps: int = 0  # cosine
    grad_clip: float | None = None
    temperature: float = 0.07
    logit_scale_max: float = 100.0
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
    precision: Precision = Precision.auto
    workers: int = 1  # per rank; 0 reads in the training process
    log_every_steps: int = 20
    checkpoint_every_steps: int = 200
    keep_checkpoints: int = 2  # of the newest, beside the best
    accumulation: int = (
        1  # parts that a trained backbone takes a rank's batch in: less memory, the same gradient
    )
    compile: bool = False  # torch.compile; the first steps take minutes
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
class GalleryConfig:
    """The coordinates that predictions are drawn from; `own` is the gallery that a run was validated with."""

    name: str = MISSING
    kind: GalleryKind = GalleryKind.file
    path: str = ""


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    name: str = MISSING
    seed: int = 0
    runs_dir: str = "runs"
    check_only: bool = False  # compose, check, print the configuration, and stop
    resume: str = "auto"  # this run's newest checkpoint; never; or a run's folder or checkpoint to start from
    force_resume: bool = False  # from a checkpoint of another configuration
    validate_every_steps: int = 200
    validate_samples: int = 2000  # at most so many of the validation split
    data: DataConfig = MISSING
    encoder: EncoderConfig = MISSING
    location: LocationConfig = MISSING
    queue: QueueConfig = MISSING
    optim: OptimConfig = MISSING
    compute: ComputeConfig = MISSING
    logger: LoggerConfig = MISSING
    gallery: GalleryConfig = MISSING


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """What a table calls its columns; empty ones are found by themselves."""

    key: str = ""  # the pictures' names; source=wds: a field of the jsons in place of the tars' own keys
    lat: str = ""
    lon: str = ""


@dataclass(kw_only=True, slots=True)
class ShardsConfig:
    """What `geoclip.shards` builds, and where; or the shards that it verifies."""

    source: ShardSource = ShardSource.bluemarble
    root: str = BLUE_MARBLE_ROOT
    overwrite: bool = False  # replace shards that were built with other settings
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)
    input: str = ""  # csv: the table; wds: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar
    images: str = ""  # csv: a folder, .zip or .tar; empty: the table's folder
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    split: str = "train"
    val_samples: int = 0  # so many, drawn at random, make the split `val`
    samples_per_shard: int = 10_000  # at most; shards are equal to within one
    max_side_px: int | None = None  # larger pictures are scaled down to this longer side; null: none is
    jpeg_quality: int = 90  # of pictures that are scaled down
    workers: int = 0  # processes; 0: one per core
    max_rejected_fraction: float = 0.05  # more rows of no use end the build
    seed: int = 0  # of the shuffle
    benchmark: BenchmarkConfig | None = None  # build the shards of this one
    inspect: str = ""  # build nothing: verify and summarise the shards in this folder


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


@dataclass(kw_only=True, slots=True)
class GalleryBuildConfig:
    """A gallery to build, and the test sets that it is measured against. The filters come in this order."""

    source: PlacesSource = PlacesSource.released_100k
    path: str = ""  # csv: the file; shards: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar
    output: str = ""  # the CSV to write; empty: galleries/<source>-<hash of what decides its contents>.csv
    box: list[float] = field(default_factory=list)  # south, west, north, east in degrees; west may be > east
    country: Any = field(default_factory=list)  # ISO 3166 code, or a list of them
    exclude: Any = field(default_factory=list)  # benchmarks or CSVs whose places it must not hold
    exclude_radius_km: float = 0.0  # 0: these very coordinates
    radius_km: float = 0.0  # no two places nearer to each other; 0: no place twice
    size: int | None = None  # so many places, drawn at random; null: all
    seed: int = 0  # of the random order
    against: Any = field(default_factory=list)  # further test sets to measure the gallery's ceilings on
    overwrite: bool = False  # replace another gallery at output


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """Images with known places: a split of shards, or photographs beside a CSV."""

    name: str = MISSING
    kind: BenchmarkKind = MISSING
    root: str = ""
    split: str = ""  # shards: below root
    built: str = (
        ""  # photos: the shards that geoclip.shards benchmark=NAME builds; read where root is not given
    )
    metadata: str = ""  # photos: the CSV below root, found by itself where it is the only one
    variable: str = ""  # the environment variable that root is read from
    source: str = ""  # where the photographs come from
    published_n: int | None = None


@dataclass(kw_only=True, slots=True)
class ModelSourceConfig:
    """Which trained model, shared by evaluation and prediction."""

    checkpoint: str = "latest"  # a run's folder, a .pt file, `latest` or `official`
    backbone: str = "openai/clip-vit-large-patch14"  # official: CLIP as Hub id or local folder
    runs_dir: str = "runs"
    device: str = "auto"
    gallery: GalleryConfig = MISSING


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(ModelSourceConfig):
    """One evaluation."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = ""  # .npz with features, lat, lon, key, or FOLDER/SPLIT of geoclip.features
    batch_size: int = 128
    seed: int = 0  # of the bootstrap


@dataclass(kw_only=True, slots=True)
class PredictConfig(ModelSourceConfig):
    """Predictions of one picture or of a folder of them."""

    image: str = MISSING
    top_k: int = 5
    output: str = ""  # folder; empty: predictions/ in the run's folder
    maps: int = 20  # at most so many pictures get a map
    batch_size: int = 64


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """The page about one run."""

    run: str = "latest"  # a run's folder, or `latest`
    runs_dir: str = "runs"


_store = ConfigStore.instance()
_store.store(name="train_schema", node=TrainConfig)
_store.store(name="shards_schema", node=ShardsConfig)
_store.store(name="features_schema", node=FeaturesConfig)
_store.store(name="gallery_schema", node=GalleryBuildConfig)
_store.store(name="evaluate_schema", node=EvaluateConfig)
_store.store(name="predict_schema", node=PredictConfig)
_store.store(name="report_schema", node=ReportConfig)

ConfigT = TypeVar("ConfigT")


def typed(cfg: DictConfig, kind: type[ConfigT], problems: Callable[[ConfigT], list[str]]) -> ConfigT:
    """What Hydra composed, as a checked dataclass of type `kind`.

    Raises:
        ConfigError: values are missing, or `problems` finds some; every problem is listed at once.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError([f"{key} must be given: add {key}=… to the command" for key in missing])
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError([str(error).splitlines()[0]]) from None
    assert isinstance(config, kind)
    found = problems(config)
    if found:
        raise ConfigError(found)
    return config


def option(group: str, name: str, kind: type[ConfigT]) -> ConfigT | None:
    """conf/<group>/<name>.yaml as a dataclass, for a command that names several of a group; None: there is none."""
    path = Path(conf_dir(), group, f"{name}.yaml")
    if not path.is_file():
        return None
    chosen = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path)))
    assert isinstance(chosen, kind)
    return chosen


def options(group: str) -> list[str]:
    """What a group has to choose from."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))
