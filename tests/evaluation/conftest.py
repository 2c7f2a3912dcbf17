"""A run as training leaves it, but untrained: what evaluation and prediction do does not depend on how good it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geoclip.build import build_model
from geoclip.config import (
    ComputeConfig,
    DataConfig,
    DataKind,
    EncoderConfig,
    EncoderKind,
    GalleryConfig,
    GalleryKind,
    LocationConfig,
    LoggerConfig,
    LossConfig,
    OptimConfig,
    QueueConfig,
    TrainConfig,
)
from geoclip.run_dir import to_dict
from geoclip.training.checkpoint import pack, write_checkpoint
from geoclip.training.state import weights_tree


@dataclass(kw_only=True)
class TinyRun:
    """A run's folder and the coordinates of its gallery, latitude and longitude by row."""

    folder: Path
    gallery_csv: Path
    gallery_deg_G2: NDArray[np.float64]

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.safetensors"


def write_gallery(path: Path, count: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    places = np.stack((rng.uniform(-80, 80, count), rng.uniform(-180, 180, count)), axis=1).round(6)
    np.savetxt(path, places, fmt="%.6f", delimiter=",", header="LAT,LON", comments="")
    return places


def write_run(folder: Path, gallery_csv: Path, seed: int = 0) -> None:
    config = TrainConfig(
        name="tiny",
        seed=seed,
        data=DataConfig(name="none", kind=DataKind.shards, root=""),
        encoder=EncoderConfig(
            name="tiny",
            kind=EncoderKind.resnet,
            image_px=16,
            feature_dim=16,
            hidden_dim=16,
            stem_dim=8,
            widths=[8, 16],
            depths=[1, 1],
        ),
        location=LocationConfig(
            name="tiny", sigmas=[1.0, 16.0], frequencies=8, hidden_dim=16, depth=1, embedding_dim=8
        ),
        queue=QueueConfig(),
        loss=LossConfig(name="one_way"),
        optim=OptimConfig(),
        compute=ComputeConfig(),
        logger=LoggerConfig(),
        gallery=GalleryConfig(name="tiny", path=str(gallery_csv)),
    )
    model = build_model(config)
    write_checkpoint(folder / "checkpoints" / "best.safetensors", pack(weights_tree(model, 1, config=to_dict(config))))


@pytest.fixture
def tiny_run(tmp_path: Path) -> TinyRun:
    """runs/tiny-1 with its own gallery of 60 places."""
    folder, gallery_csv = tmp_path / "runs" / "tiny-1", tmp_path / "gallery.csv"
    places = write_gallery(gallery_csv, 60)
    write_run(folder, gallery_csv)
    return TinyRun(folder=folder, gallery_csv=gallery_csv, gallery_deg_G2=places)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Five photographs of noise with their CSV; two more are in the CSV: one broken, one missing."""
    root, rng = tmp_path / "photos", np.random.default_rng(1)
    (root / "images").mkdir(parents=True)
    lines = ["IMG_ID,LAT,LON"]
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(root / "images" / f"{number}.jpg")
        lines.append(f"{number}.jpg,{rng.uniform(-80, 80):.6f},{rng.uniform(-180, 180):.6f}")
    (root / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no more than this")
    (root / "metadata.csv").write_text("\n".join([*lines, "broken.jpg,1,2", "missing.jpg,3,4"]) + "\n")
    return root


@pytest.fixture
def own_gallery() -> GalleryConfig:
    """What gallery=own composes to: the gallery that the run was validated with."""
    return GalleryConfig(name="own", kind=GalleryKind.own)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was logged so far, as one text."""
    caplog.set_level(logging.INFO, "geoclip")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)
