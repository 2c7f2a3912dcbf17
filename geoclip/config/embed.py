"""Coordinates to be embedded, and the location encoder that does it."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass(kw_only=True, slots=True)
class LocationSourceConfig:
    """Which location encoder, shared by embedding, export and probe."""

    checkpoint: str = (
        "official"  # `official`, `latest`, a run's folder, a checkpoint, a folder with config.json
    )
    runs_dir: str = "runs"


@dataclass(kw_only=True, slots=True)
class EmbedConfig(LocationSourceConfig):
    """One table of coordinates."""

    input: str = MISSING  # CSV
    output: str = ""  # .npz, .npy, .csv or .parquet; empty: the input's name with .npz
    normalise: bool = True  # to unit vectors
    batch_size: int = 2048
    device: str = "auto"
    overwrite: bool = False  # a file that stands there
