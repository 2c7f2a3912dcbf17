"""What is asked of a trained model."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from geoclip.config.choices import Protocol, Tta
from geoclip.config.data import BenchmarkConfig, GalleryConfig


@dataclass(kw_only=True, slots=True)
class ModelSourceConfig:
    """Which trained model, shared by evaluation and prediction."""

    checkpoint: str = "latest"  # a run's folder, a .pt file, `latest` or `official`
    backbone: str = "openai/clip-vit-large-patch14"  # official: CLIP as Hub id or local folder
    runs_dir: str = "runs"
    device: str = "auto"
    tta: Tta = Tta.single
    gallery: GalleryConfig = MISSING


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(ModelSourceConfig):
    """One evaluation."""

    benchmark: BenchmarkConfig = MISSING
    image_features: str = ""  # .npz with features, lat, lon, key, or FOLDER/SPLIT of geoclip.features
    batch_size: int = 128
    seed: int = 0  # of the bootstrap
    protocol: Protocol = Protocol.sphere


@dataclass(kw_only=True, slots=True)
class PredictConfig(ModelSourceConfig):
    """Predictions of one picture or of a folder of them."""

    image: str = MISSING
    top_k: int = 5
    output: str = ""  # folder; empty: predictions/ in the run's folder
    maps: int = 20  # at most so many pictures get a map
    batch_size: int = 64


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """The page about one run."""

    run: str = "latest"  # a run's folder, or `latest`
    runs_dir: str = "runs"
