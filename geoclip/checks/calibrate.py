"""Why a calibration cannot start."""

from __future__ import annotations

from geoclip.checks.evaluate import asked_problems
from geoclip.config import CalibrateConfig


def calibrate_problems(config: CalibrateConfig) -> list[str]:
    """Every reason why this calibration cannot start."""
    problems = asked_problems(config)
    if config.benchmark.name.startswith("test") or config.benchmark.published_n is not None:
        problems.append(
            f"benchmark={config.benchmark.name} is a test set: a temperature fitted there would flatter every "
            "result on it; calibrate on benchmark=val"
        )
    return problems
