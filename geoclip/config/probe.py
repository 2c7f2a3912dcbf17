"""What an embedding knows, asked by a linear head."""

from __future__ import annotations

from dataclasses import dataclass

from geoclip.config.embed import LocationSourceConfig


@dataclass(kw_only=True, slots=True)
class ProbeConfig(LocationSourceConfig):
    """One probe."""

    places: int = 20_000  # drawn on the sphere, and as many on land
    seed: int = 0  # of the places, the split into cells, the untrained encoder and the bootstrap
    output: str = ""  # folder; empty: probe/ in the run's folder
    device: str = "auto"
