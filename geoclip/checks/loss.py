"""Why a loss cannot be computed."""

from __future__ import annotations

import math

from geoclip.config import LossKind, Near, TrainConfig

HALF_EQUATOR_KM = 20_015.0


def loss_problems(config: TrainConfig) -> list[str]:
    """Reasons why this loss cannot be computed."""
    loss, problems = config.loss, []
    if not (math.isfinite(loss.temperature) and loss.temperature > 0):
        problems.append(f"loss.temperature={loss.temperature} must be positive")
    elif loss.logit_scale_max is not None and loss.logit_scale_max < 1 / loss.temperature:
        problems.append(
            f"loss.logit_scale_max={loss.logit_scale_max} lies below the scale that training starts with, "
            f"1 / loss.temperature = {1 / loss.temperature:g}; null for no limit"
        )
    if loss.views < 1:
        problems.append(f"loss.views={loss.views} must be 1 or more")
    elif loss.views > 1 and not config.encoder.features and not _augments(config):
        problems.append(
            f"loss.views={loss.views} are the same picture so many times: data={config.data.name} is not augmented; "
            "set data.crop_scale_min, data.flip or data.color_jitter"
        )
    if loss.hard_negatives < 0:
        problems.append(f"loss.hard_negatives={loss.hard_negatives} must be 0 or more")
    for key in ("near_radius_km", "hard_radius_km"):
        if not 0 < getattr(loss, key) < HALF_EQUATOR_KM:
            problems.append(f"loss.{key}={getattr(loss, key)} must lie in (0, {HALF_EQUATOR_KM:g}) km")
    return problems + _without_negatives(config)


def _without_negatives(config: TrainConfig) -> list[str]:
    """Reasons why a picture has no candidate but its own: the loss is 0, and nothing is learnt."""
    loss, batch, queue = config.loss, config.optim.batch_size, config.queue.size
    problems = []
    if batch == 1 and queue == 0 and loss.hard_negatives == 0:
        problems.append(
            "optim.batch_size=1 with queue.size=0 and loss.hard_negatives=0 leaves a picture no candidate but its own: "
            "the loss is 0 and nothing is learnt; try optim.batch_size=2 or more, or a queue"
        )
    elif batch == 1 and loss.kind is LossKind.symmetric:
        problems.append(
            "optim.batch_size=1 with loss=symmetric leaves a location no picture but its own: half of the loss is 0; "
            "try optim.batch_size=2 or more, or loss=one_way"
        )
    if loss.near is Near.mask and loss.hard_negatives > 0 and loss.near_radius_km > 2 * loss.hard_radius_km:
        problems.append(
            f"loss.near=mask with loss.near_radius_km={loss.near_radius_km:g} leaves out every one of "
            f"loss.hard_negatives={loss.hard_negatives}, which are at most 2 × loss.hard_radius_km="
            f"{loss.hard_radius_km:g} km away; lower near_radius_km or raise hard_radius_km"
        )
    return problems


def _augments(config: TrainConfig) -> bool:
    data = config.data
    return data.crop_scale_min < 1 or data.flip or data.color_jitter > 0 or data.grayscale > 0
