"""Why a model cannot be published."""

from __future__ import annotations

import os
import re

from geoclip.config import PublishConfig

HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


def publish_problems(config: PublishConfig) -> list[str]:
    """Every reason why this model cannot be published, each with its cure."""
    problems = []
    if config.checkpoint.startswith("hf-hub:") or config.checkpoint in ("official", ""):
        problems.append(
            f"checkpoint={config.checkpoint} was not trained here; name a run's folder, a checkpoint, or `latest`"
        )
    elif config.checkpoint != "latest" and not os.path.exists(config.checkpoint):
        problems.append(
            f"checkpoint={config.checkpoint} is neither a run's folder nor a file; `latest` is the newest run in "
            f"{config.runs_dir}/"
        )
    if config.repo and not re.fullmatch(HUB_ID, config.repo):
        problems.append(f"repo={config.repo} must be a Hub id, owner/name")
    if config.push and not config.repo:
        problems.append("push=true needs a place: repo=owner/name")
    if config.push and not config.licence:
        problems.append("push=true needs the licence of the weights, as the Hub names it: licence=mit")
    if config.backbone and not re.fullmatch(HUB_ID, config.backbone):
        problems.append(f"backbone={config.backbone} must be a Hub id: others have no such folder")
    if os.path.isfile(config.output):
        problems.append(f"output={config.output} is a file; name a folder")
    return problems
