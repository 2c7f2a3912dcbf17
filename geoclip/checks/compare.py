"""Why two runs cannot be compared."""

from __future__ import annotations

import os

from geoclip.config import CompareConfig

FEWEST_RESAMPLES = 1000  # fewer say little of what lies beyond 97.5 %


def compare_problems(config: CompareConfig) -> list[str]:
    """Every reason why this comparison cannot be made, as far as the files' names tell."""
    problems = []
    for key in ("a", "b"):
        run = getattr(config, key)
        if not os.path.isdir(run):
            problems.append(f"{key}={run} is no folder of a run")
        elif not all(
            os.path.isfile(f"{run}/eval/{config.benchmark.name}.{kind}") for kind in ("json", "csv")
        ):
            problems.append(
                f"{key}={run} was not evaluated on {config.benchmark.name}: python -m geoclip.evaluate "
                f"checkpoint={run} benchmark={config.benchmark.name}"
            )
    if config.resamples < FEWEST_RESAMPLES:
        problems.append(
            f"resamples={config.resamples} must be {FEWEST_RESAMPLES} or more: intervals need their tails"
        )
    return problems
