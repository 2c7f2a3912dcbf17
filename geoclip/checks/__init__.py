"""What cannot run, and why: pure functions from a configuration to sentences that name key, value and cure."""

from geoclip.checks.calibrate import calibrate_problems
from geoclip.checks.compare import compare_problems
from geoclip.checks.embed import embed_problems
from geoclip.checks.evaluate import evaluate_problems
from geoclip.checks.export import export_problems
from geoclip.checks.features import features_problems
from geoclip.checks.gallery import gallery_build_problems
from geoclip.checks.predict import predict_problems
from geoclip.checks.probe import probe_problems
from geoclip.checks.publish import publish_problems
from geoclip.checks.shards import shards_problems
from geoclip.checks.study import study_problems
from geoclip.checks.tabulate import tabulate_problems
from geoclip.checks.train import train_problems

__all__ = [
    "calibrate_problems",
    "compare_problems",
    "embed_problems",
    "evaluate_problems",
    "export_problems",
    "features_problems",
    "gallery_build_problems",
    "predict_problems",
    "probe_problems",
    "publish_problems",
    "shards_problems",
    "study_problems",
    "tabulate_problems",
    "train_problems",
]
