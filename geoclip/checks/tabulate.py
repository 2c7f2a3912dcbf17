"""Why a table cannot be made."""

from __future__ import annotations

from geoclip.config import TabulateConfig

ALLOWED = ("data", "gallery", "budget", "revision")


def tabulate_problems(config: TabulateConfig) -> list[str]:
    """Every reason why this table cannot be made, as far as the configuration tells."""
    problems = []
    if not config.runs:
        problems.append("runs='' names no folder; as in runs='runs/scales-*'")
    if not isinstance(config.where or {}, dict):
        problems.append(f"where={config.where} must be 'where={{loss: one_way}}'")
    problems += [
        f"allow={kind} is none of {', '.join(ALLOWED)}" for kind in config.allow if kind not in ALLOWED
    ]
    return problems
