"""Why a study's tables and pages cannot be made."""

from __future__ import annotations

from pathlib import Path

from geoclip.checks.tabulate import ALLOWED
from geoclip.config import StudyPageConfig


def study_problems(config: StudyPageConfig) -> list[str]:
    """Every reason, each with its cure."""
    problems = []
    if not Path(config.experiments).is_dir():
        problems.append(f"experiments={config.experiments} is no folder")
    elif config.name:
        found = list(Path(config.experiments).glob(f"[0-9][0-9]_{config.name}/README.md"))
        if len(found) != 1:
            problems.append(
                f"name={config.name}: {len(found)} folders {config.experiments}/NN_{config.name} with a README.md, "
                "where one says what is expected (experiments/README.md)"
            )
        if not list(Path(config.runs_dir).glob(f"{config.name}-*/config.yaml")):
            problems.append(
                f"name={config.name}: no runs {config.runs_dir}/{config.name}-*; train them: python -m geoclip.train "
                f"+experiment={config.name}"
            )
    if config.jobs < 1:
        problems.append(f"jobs={config.jobs} must be 1 or more")
    problems += [
        f"allow={kind} is none of {', '.join(ALLOWED)}" for kind in config.allow if kind not in ALLOWED
    ]
    return problems
