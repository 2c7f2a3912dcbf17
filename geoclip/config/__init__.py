"""Every configuration dataclass, registered once. `typed` turns what Hydra composed into checked dataclasses.

Below the entry points nobody sees Hydra or OmegaConf.
"""

from hydra.core.config_store import ConfigStore

from geoclip.config.ask import (
    EvaluateConfig,
    ModelSourceConfig,
    PredictConfig,
    ReportConfig,
)
from geoclip.config.calibrate import CalibrateConfig
from geoclip.config.choices import (
    AverageKind,
    BenchmarkKind,
    Combine,
    DataKind,
    EncoderKind,
    Fit,
    GalleryKind,
    Interpolation,
    LocationKind,
    LoggerMode,
    LossKind,
    Near,
    OptimizerKind,
    PlacesSource,
    Precision,
    Projection,
    Protocol,
    QueueEmbeddings,
    QueueStart,
    ScheduleKind,
    ShardSource,
    Sphere2VecKind,
    Tta,
    Tune,
)
from geoclip.config.compare import CompareConfig
from geoclip.config.composed import (
    ConfigError,
    from_plain,
    no_such_key,
    option,
    options,
    typed,
)
from geoclip.config.data import (
    BLUE_MARBLE_ROOT,
    BenchmarkConfig,
    BlueMarbleConfig,
    ColumnsConfig,
    DataConfig,
    GalleryBuildConfig,
    GalleryConfig,
    ShardsConfig,
)
from geoclip.config.embed import EmbedConfig, LocationSourceConfig
from geoclip.config.export import ExportConfig, ExportFormat
from geoclip.config.probe import ProbeConfig
from geoclip.config.publish import PublishConfig
from geoclip.config.search import SearchConfig
from geoclip.config.study import StudyPageConfig
from geoclip.config.tabulate import TabulateConfig
from geoclip.config.train import (
    ComputeConfig,
    EncoderConfig,
    FeaturesConfig,
    LocationConfig,
    LoggerConfig,
    LossConfig,
    OptimConfig,
    QueueConfig,
    StudyConfig,
    TrainConfig,
)

__all__ = [
    "BLUE_MARBLE_ROOT",
    "AverageKind",
    "BenchmarkConfig",
    "BenchmarkKind",
    "BlueMarbleConfig",
    "CalibrateConfig",
    "ColumnsConfig",
    "Combine",
    "CompareConfig",
    "ComputeConfig",
    "ConfigError",
    "DataConfig",
    "DataKind",
    "EmbedConfig",
    "EncoderConfig",
    "EncoderKind",
    "EvaluateConfig",
    "ExportConfig",
    "ExportFormat",
    "FeaturesConfig",
    "Fit",
    "GalleryBuildConfig",
    "GalleryConfig",
    "GalleryKind",
    "Interpolation",
    "LocationConfig",
    "LocationKind",
    "LocationSourceConfig",
    "LoggerConfig",
    "LoggerMode",
    "LossConfig",
    "LossKind",
    "ModelSourceConfig",
    "Near",
    "OptimConfig",
    "OptimizerKind",
    "PlacesSource",
    "Precision",
    "PredictConfig",
    "ProbeConfig",
    "Projection",
    "Protocol",
    "PublishConfig",
    "QueueConfig",
    "QueueEmbeddings",
    "QueueStart",
    "ReportConfig",
    "ScheduleKind",
    "SearchConfig",
    "ShardSource",
    "ShardsConfig",
    "Sphere2VecKind",
    "StudyConfig",
    "StudyPageConfig",
    "TabulateConfig",
    "TrainConfig",
    "Tta",
    "Tune",
    "from_plain",
    "no_such_key",
    "option",
    "options",
    "typed",
]

_store = ConfigStore.instance()
_store.store(  # here, so that conf/ holds no names of classes; conf/train.yaml chooses it
    group="hydra/callbacks", name="sweep", node={"sweep": {"_target_": "geoclip.sweep.SweepWatch"}}
)
_store.store(group="hydra/sweeper", name="optuna_schema", node=SearchConfig)
_store.store(name="train_schema", node=TrainConfig)
_store.store(name="shards_schema", node=ShardsConfig)
_store.store(name="features_schema", node=FeaturesConfig)
_store.store(name="gallery_schema", node=GalleryBuildConfig)
_store.store(name="calibrate_schema", node=CalibrateConfig)
_store.store(name="evaluate_schema", node=EvaluateConfig)
_store.store(name="compare_schema", node=CompareConfig)
_store.store(name="predict_schema", node=PredictConfig)
_store.store(name="report_schema", node=ReportConfig)
_store.store(name="embed_schema", node=EmbedConfig)
_store.store(name="export_schema", node=ExportConfig)
_store.store(name="probe_schema", node=ProbeConfig)
_store.store(name="study_schema", node=StudyPageConfig)
_store.store(name="tabulate_schema", node=TabulateConfig)
_store.store(name="publish_schema", node=PublishConfig)
