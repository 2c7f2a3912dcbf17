"""Every configuration: its schema with its rules, registered once under the name that `conf/` extends."""

from hydra.core.config_store import ConfigStore

from geoclip.config.choices import (
    AverageKind,
    BenchmarkKind,
    Combine,
    DataKind,
    EncoderKind,
    ExportFormat,
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
    QueueStart,
    ScheduleKind,
    ShardSource,
    Sphere2VecKind,
    Tta,
    Tune,
)
from geoclip.config.commands import (
    EmbedConfig,
    ExportConfig,
    LocationSourceConfig,
    ProbeConfig,
    PublishConfig,
    SearchConfig,
    StudyPageConfig,
    SweepFileConfig,
    TabulateConfig,
    embed_output,
    embed_problems,
    export_problems,
    probe_problems,
    publish_problems,
    study_problems,
    sweep_file_problems,
    tabulate_problems,
)
from geoclip.config.composed import ConfigError, from_plain, no_such_key, option, options, typed
from geoclip.config.data import (
    BenchmarkConfig,
    BlueMarbleConfig,
    ColumnsConfig,
    DataConfig,
    GalleryBuildConfig,
    GalleryConfig,
    ShardsConfig,
    gallery_build_problems,
    one_or_many,
    shards_problems,
    shards_root,
)
from geoclip.config.evaluate import (
    BenchmarkedConfig,
    CalibrateConfig,
    CompareConfig,
    EvaluateConfig,
    ModelSourceConfig,
    PredictConfig,
    ReportConfig,
    calibrate_problems,
    compare_problems,
    evaluate_problems,
    predict_problems,
)
from geoclip.config.help import config_help
from geoclip.config.keys import key_problems, section_of, type_in_words, type_of_key, type_problem
from geoclip.config.model import EncoderConfig, LocationConfig, LossConfig, encoder_problems
from geoclip.config.train import (
    ComputeConfig,
    FeaturesConfig,
    LoggerConfig,
    OptimConfig,
    QueueConfig,
    StudyConfig,
    TrainConfig,
    features_problems,
    train_problems,
)

SCHEMAS = {
    "train": TrainConfig,
    "shards": ShardsConfig,
    "features": FeaturesConfig,
    "gallery": GalleryBuildConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
    "predict": PredictConfig,
    "report": ReportConfig,
    "embed": EmbedConfig,
    "export": ExportConfig,
    "probe": ProbeConfig,
    "publish": PublishConfig,
    "study": StudyPageConfig,
    "tabulate": TabulateConfig,
    "sweep_file": SweepFileConfig,
}

__all__ = [
    "AverageKind", "BenchmarkConfig", "BenchmarkKind", "BenchmarkedConfig", "BlueMarbleConfig",
    "CalibrateConfig", "ColumnsConfig", "Combine", "CompareConfig", "ComputeConfig", "ConfigError",
    "DataConfig", "DataKind", "EmbedConfig", "EncoderConfig", "EncoderKind", "EvaluateConfig",
    "ExportConfig", "ExportFormat", "FeaturesConfig", "Fit", "GalleryBuildConfig", "GalleryConfig",
    "GalleryKind", "Interpolation", "LocationConfig", "LocationKind", "LocationSourceConfig",
    "LoggerConfig", "LoggerMode", "LossConfig", "LossKind", "ModelSourceConfig", "Near", "OptimConfig",
    "OptimizerKind", "PlacesSource", "Precision", "PredictConfig", "ProbeConfig", "Projection", "Protocol",
    "PublishConfig", "QueueConfig", "QueueStart", "ReportConfig", "ScheduleKind", "SearchConfig",
    "ShardSource", "ShardsConfig", "Sphere2VecKind", "StudyConfig", "StudyPageConfig", "SweepFileConfig",
    "TabulateConfig", "TrainConfig", "Tta", "Tune", "calibrate_problems", "compare_problems", "config_help",
    "embed_output", "embed_problems", "encoder_problems", "evaluate_problems", "export_problems",
    "features_problems", "from_plain", "gallery_build_problems", "key_problems", "no_such_key",
    "one_or_many", "option", "options", "predict_problems", "probe_problems", "publish_problems",
    "section_of", "shards_problems", "shards_root", "study_problems", "sweep_file_problems",
    "tabulate_problems", "train_problems", "type_in_words", "type_of_key", "type_problem", "typed",
]  # fmt: skip

_store = ConfigStore.instance()
_store.store(  # here, so that conf/ holds no names of classes; conf/train.yaml chooses it
    group="hydra/callbacks", name="sweep", node={"sweep": {"_target_": "geoclip.sweep.SweepWatch"}}
)
_store.store(group="hydra/sweeper", name="optuna_schema", node=SearchConfig)
for _name, _schema in SCHEMAS.items():
    _store.store(name=f"{_name}_schema", node=_schema)
