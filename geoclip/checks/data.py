"""Why shards and galleries cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from geoclip.config import (
    BlueMarbleConfig,
    DataConfig,
    DataKind,
    GalleryConfig,
    GalleryKind,
)

MP16_CURE = (
    "set MP16_SHARDS or data.root to the folder of the MP16 tar shards (key.jpg + key.json with lat, lon in "
    "each tar); README.md, section 'Train on MP16', says how to build them"
)


def data_problems(data: DataConfig, *, read: bool = True) -> list[str]:
    """Reasons why these shards cannot be read; without `read`, why they cannot be described."""
    problems = []
    if not 0 < data.fraction <= 1:
        problems.append(f"data.fraction={data.fraction} must lie in (0, 1], e.g. data.fraction=0.2 for 20 %")
    if data.streams < 1:
        problems.append(f"data.streams={data.streams} must be 1 or more")
    if data.shuffle_buffer < 1:
        problems.append(
            f"data.shuffle_buffer={data.shuffle_buffer} must be 1 or more; 1 keeps the shards' order"
        )
    if not 0 <= data.max_bad_fraction < 1:
        problems.append(
            f"data.max_bad_fraction={data.max_bad_fraction} is a share in [0, 1); with 1 a run would go through "
            "pictures of which not one can be read, and learn nothing"
        )
    if data.max_pixels < 1:
        problems.append(f"data.max_pixels={data.max_pixels} must be 1 or more")
    if not 0 < data.crop_scale_min <= 1:
        problems.append(f"data.crop_scale_min={data.crop_scale_min} must lie in (0, 1]")
    if data.crop_ratio < 1:
        problems.append(f"data.crop_ratio={data.crop_ratio} must be 1 or more")
    for key, value in (("color_jitter", data.color_jitter), ("grayscale", data.grayscale)):
        if not 0 <= value <= 1:
            problems.append(f"data.{key}={value} is a probability in [0, 1]")
    if data.kind is DataKind.bluemarble:
        problems += blue_marble_problems(data.bluemarble, "data.bluemarble")
    if data.kind is DataKind.shards and read:
        if not data.root:
            problems.append(f"data={data.name} has no shards: {MP16_CURE}")
        elif "://" in data.root:
            problems.append(
                f"data.root={data.root} is an address; shards are read by position, from a file system: mount it "
                "there, or copy the shards"
            )
        elif not Path(data.root).is_dir():
            problems.append(f"data.root={data.root} is no folder: {MP16_CURE}")
    return problems


def blue_marble_problems(views: BlueMarbleConfig, prefix: str) -> list[str]:
    """Reasons why these views cannot be cut."""
    problems = []
    for key in ("size_px", "gallery_size", "val_size", "test_size", "unseen_size", "samples_per_shard"):
        if getattr(views, key) < 1:
            problems.append(f"{prefix}.{key}={getattr(views, key)} must be 1 or more")
    if not 0 < views.span_km <= 20_000:
        problems.append(f"{prefix}.span_km={views.span_km} must lie in (0, 20000] km")
    if not 1 <= views.jpeg_quality <= 100:
        problems.append(f"{prefix}.jpeg_quality={views.jpeg_quality} must lie in 1 … 100")
    return problems


def gallery_problems(gallery: GalleryConfig, *, may_be_built: bool = False) -> list[str]:
    """Reasons why this gallery cannot be read; `may_be_built` allows a file that the demo's data will bring."""
    if gallery.kind is GalleryKind.own:
        return [
            f"gallery={gallery.name} is for evaluation; a run is trained with gallery=bluemarble, released_100k or csv"
        ]
    if gallery.kind is GalleryKind.released or may_be_built:
        return []
    if not gallery.path:
        return [f"gallery.path='' of gallery={gallery.name} must name a CSV with the columns LAT, LON"]
    if not os.path.isfile(gallery.path):
        return [f"gallery.path={gallery.path} is no file; it must be a CSV with the columns LAT, LON"]
    return []
