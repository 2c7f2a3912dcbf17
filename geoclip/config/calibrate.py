"""A calibration."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from geoclip.config.ask import ModelSourceConfig
from geoclip.config.data import BenchmarkConfig


@dataclass(kw_only=True, slots=True)
class CalibrateConfig(ModelSourceConfig):
    """Which model is calibrated on what."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = ""  # as of geoclip.evaluate
    batch_size: int = 128
