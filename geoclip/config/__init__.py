"""Every configuration: its schema with its rules, registered once under the name that `conf/` extends."""
# ruff: noqa: F403, F405

from hydra.core.config_store import ConfigStore

from geoclip.config.choices import *
from geoclip.config.commands import *
from geoclip.config.composed import *
from geoclip.config.data import *
from geoclip.config.evaluate import *
from geoclip.config.keys import *
from geoclip.config.model import *
from geoclip.config.train import *

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
    "study": StudyCommandConfig,
}

_store = ConfigStore.instance()
_store.store(  # here, because conf/ contains no class names; conf/train.yaml chooses it
    group="hydra/callbacks", name="sweep", node={"sweep": {"_target_": "geoclip.cli.sweep.SweepWatch"}}
)
_store.store(group="hydra/sweeper", name="optuna_schema", node=SearchConfig)
for _name, _schema in SCHEMAS.items():
    _store.store(name=f"{_name}_schema", node=_schema)
