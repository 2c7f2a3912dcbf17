"""The table of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from geoclip.config.data import BenchmarkConfig


@dataclass(kw_only=True, slots=True)
class TabulateConfig:
    """Which runs are set side by side, and on what."""

    runs: str = "runs/*"  # a pattern of run folders
    where: Any = None  # of these, the runs whose configuration says so: {loss.name: one_way}
    by: str = "location"  # what they differ in, beside the seed: a group or a key of the configuration
    benchmark: BenchmarkConfig = MISSING  # whose eval/<benchmark>.json is read
    baseline: str = ""  # the variant that the others are compared with; empty: none
    output: str = ""  # a .md, beside which a .json is written; empty: the console alone
