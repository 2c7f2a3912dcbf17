"""Why a table cannot be made."""

from __future__ import annotations

from geoclip.config import TabulateConfig


def tabulate_problems(config: TabulateConfig) -> list[str]:
    """Every reason why this table cannot be made, as far as the configuration tells."""
    problems = []
    if config.output and not config.output.endswith(".md"):
        problems.append(
            f"output={config.output} must end in .md; the same name in .json is written beside it"
        )
    for key in ("runs", "by"):
        if not getattr(config, key):
            problems.append(f"{key}='' must not be empty")
    if not isinstance(config.where or {}, dict):
        problems.append(f"where={config.where} must be 'where={{loss.name: one_way}}'")
    return problems
