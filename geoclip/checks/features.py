"""Why features cannot be extracted."""

from __future__ import annotations

from geoclip.checks.data import data_problems
from geoclip.checks.encoder import encoder_problems
from geoclip.config import FeaturesConfig


def features_problems(config: FeaturesConfig) -> list[str]:
    """Every reason why this encoder cannot be run over this data, each with its cure."""
    problems = [*data_problems(config.data), *encoder_problems(config.encoder)]
    if not config.encoder.frozen:
        problems.append(
            f"encoder={config.encoder.name} is trained, so that its features change; choose a frozen one: "
            "encoder=clip_vit_l14, or encoder=resnet_tiny_frozen encoder.repo=RUN"
        )
    if config.encoder.features:
        problems.append("encoder.features is for training; features are made from pictures")
    if not config.splits:
        problems.append("splits=[] names no split; [train,val] are what training needs")
    if config.views is not None and config.views < 0:
        problems.append(f"views={config.views} must be 0 (the evaluation view alone) or more")
    if config.batch_size < 1:
        problems.append(f"batch_size={config.batch_size} must be 1 or more")
    if config.compute.workers < 0:
        problems.append(f"compute.workers={config.compute.workers} must be 0 or more")
    return problems
