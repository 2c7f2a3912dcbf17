"""What is asked of a trained model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geoclip.config.choices import Protocol, Tta
from geoclip.config.data import MAX_PIXELS, BenchmarkConfig, GalleryConfig


@dataclass(kw_only=True, slots=True)
class ModelSourceConfig:
    """Which trained model, shared by evaluation and prediction."""

    checkpoint: str = (
        "latest"  # a run's folder or file, `latest`, `official`, or a release: see docs/releases.md
    )
    backbone: str = ""  # of a release: CLIP as Hub id or local folder; empty: the one that it names
    runs_dir: str = "runs"
    device: str = "auto"
    tta: Tta = Tta.single
    gallery: GalleryConfig = MISSING
    max_pixels: int = (
        MAX_PIXELS  # pictures of more are skipped; JPEGs of up to 4 times as many are decoded smaller
    )
    keep_gallery: bool = True  # keep the embedded gallery in $GEOCLIP_CACHE/galleries for the next call


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(ModelSourceConfig):
    """One evaluation."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = ""  # .npz with features, lat, lon, key, or FOLDER/SPLIT of geoclip.features
    batch_size: int = 128
    seed: int = 0  # of the bootstrap
    protocol: Protocol = Protocol.sphere
    train_places: str = (
        ""  # CSV of what was trained on, for accuracy by distance to it; empty: the run's own shards
    )


@dataclass(kw_only=True, slots=True)
class PredictConfig(ModelSourceConfig):
    """Predictions of pictures and texts."""

    image: str = ""  # a picture, or a folder of them
    text: Any = field(default_factory=list)  # a text, or a list of them; CLIP's text tower reads it
    top_k: int = 5
    box: list[float] = field(default_factory=list)  # south, west, north, east in degrees; west may be > east
    country: Any = field(default_factory=list)  # ISO 3166 code, or a list of them
    smooth_km: float = 0.0  # standard deviation of the heat's smoothing; 0: none
    refine_m: float | None = None  # guesses between the gallery's places, to so many metres; null: its places
    abstain_km: float | None = None  # of a calibrated model: what is expected to be farther off is not known
    output: str = ""  # folder; empty: predictions/ in the run's folder
    maps: int = 20  # at most so many get a map
    batch_size: int = 64


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """The page about one run."""

    run: str = "latest"  # a run's folder, or `latest`
    runs_dir: str = "runs"
