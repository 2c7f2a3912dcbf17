"""The comparison of two runs."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from geoclip.config.data import BenchmarkConfig


@dataclass(kw_only=True, slots=True)
class CompareConfig:
    """Which two runs are compared, and on what."""

    a: str = MISSING  # a run's folder
    b: str = MISSING  # another's; the comparison is written into this one
    benchmark: BenchmarkConfig = MISSING  # whose eval/<benchmark>.json and .csv are read
    force: bool = (
        False  # compare what both have, whatever gallery, protocol and images they were measured with
    )
    seed: int = 0  # of the resamples
