"""The released model and ours on the same released weights and gallery."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoclip import load
from geoclip.data.assets import asset_path
from geoclip.evaluation.gallery import Gallery, read_gallery
from geoclip.model.geoclip import GeoCLIP
from tests.model.released import load_released, tiny_released_geoclip, write_tiny_clip


class AsGiven(nn.Module):
    """Replaces CLIP in the released image encoder: precomputed features pass unchanged."""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """The features themselves."""
        return pixel_values


@cache
def released_geoclip() -> tuple[GeoCLIP, Any]:
    """Our model and the authors', in evaluation mode; theirs takes CLIP's features, (B, 768), for pictures."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_tiny_clip(Path(folder))
        ours = load("official", backbone=str(clip)).eval()
        theirs = tiny_released_geoclip(clip).eval()
    theirs.image_encoder.CLIP = AsGiven()
    return ours, theirs


@cache
def released_gallery(places: int) -> Gallery:
    """The first locations of the released gallery."""
    gallery = read_gallery(asset_path("gallery_100k.csv"), "released_100k")
    return Gallery(name=gallery.name, gps_deg_G2=gallery.gps_deg_G2[:places])


def clip_features(count: int, seed: int = 0) -> Tensor:
    """(count, 768) random features of about the length that CLIP ViT-L/14's have."""
    generator = torch.Generator().manual_seed(seed)
    return 10 * nn.functional.normalize(torch.randn(count, 768, generator=generator), dim=1)


def untrained_released_geoclip() -> Any:
    """The authors' model with random weights, which takes CLIP's features, (B, 768), for pictures."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_tiny_clip(Path(folder))
        model = load_released("GeoCLIP").GeoCLIP(from_pretrained=False, clip_path=str(clip))
    model.image_encoder.CLIP = AsGiven()
    return model
