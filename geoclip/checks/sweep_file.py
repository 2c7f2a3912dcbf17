"""Why a sweep file cannot be written."""

from __future__ import annotations

from geoclip.config import SweepFileConfig, options


def sweep_file_problems(config: SweepFileConfig) -> list[str]:
    """Every reason why this file cannot be written, as far as the configuration tells."""
    problems = []
    if config.study not in (known := options("experiment")):
        problems.append(f"study={config.study} is no file of conf/experiment/; there are {', '.join(known)}")
    if not config.output.endswith((".yaml", ".yml")):
        problems.append(f"output={config.output} must end in .yaml, which wandb sweep reads")
    return problems
