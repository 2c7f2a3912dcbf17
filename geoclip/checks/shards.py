"""Why shards cannot be built."""

from __future__ import annotations

from geoclip.checks.data import blue_marble_problems
from geoclip.config import (
    ShardsConfig,
)


def shards_problems(config: ShardsConfig) -> list[str]:
    """Every reason why these shards cannot be built."""
    problems = blue_marble_problems(config.bluemarble, "bluemarble")
    if not config.root:
        problems.append("root='' must name the folder to build")
    return problems
