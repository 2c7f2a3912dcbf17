"""Why two runs cannot be compared."""

from __future__ import annotations

import os

from geoclip.config import CompareConfig


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
    return problems
