"""Why a study's tables cannot be made."""

from __future__ import annotations

from pathlib import Path

from geoclip.config import StudyCommandConfig

ALLOWED = ("data", "gallery", "budget", "revision")
OF_RUNS = ("where", "by", "baseline", "benchmarks", "output")  # keys that select what `runs` prints


def study_problems(config: StudyCommandConfig) -> list[str]:
    """Every reason, each with its fix."""
    problems = _problems_of_runs(config) if config.runs else _problems_of_study(config)
    if config.jobs < 1:
        problems.append(f"jobs={config.jobs} must be 1 or more")
    problems += [
        f"allow={kind} is none of {', '.join(ALLOWED)}" for kind in config.allow if kind not in ALLOWED
    ]
    return problems


def _problems_of_runs(config: StudyCommandConfig) -> list[str]:
    problems = []
    if config.name:
        problems.append(f"name={config.name} and runs={config.runs}: give one of them")
    if not isinstance(config.where or {}, dict):
        problems.append(f"where={config.where} must be 'where={{loss: one_way}}'")
    return problems


def _problems_of_study(config: StudyCommandConfig) -> list[str]:
    problems = [
        f"{key}={getattr(config, key)} needs runs=…, the run folders to print tables of"
        for key in OF_RUNS
        if getattr(config, key)
    ]
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
    return problems
