"""A trained model with its gallery and preprocessing, as evaluation and prediction need it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from geoclip.build import build_gallery, build_preprocessing, encoder_identity
from geoclip.build.published import read_model
from geoclip.config import GalleryConfig, GalleryKind, ModelSourceConfig
from geoclip.data.assets import cache_dir
from geoclip.data.transforms import Preprocessing
from geoclip.distributed import World, initialise
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.gallery_cache import embedded_gallery
from geoclip.model.from_release import OWN
from geoclip.model.geoclip import GeoCLIP
from geoclip.pretrained.resolver import CheckpointKind, resolve_checkpoint

log = logging.getLogger("geoclip")


@dataclass(kw_only=True, slots=True)
class LoadedModel:
    """A trained model on its device, and what results record of it."""

    model: GeoCLIP
    world: World
    name: str
    folder: Path  # results are written to it
    sha256: str  # of the checkpoint's files
    preprocessing: Preprocessing
    gallery: Gallery
    is_own_gallery: bool  # the one that it was validated with
    encoder: dict[str, Any]  # whose features it takes
    keep_gallery: bool

    @property
    def scale(self) -> float:
        """That similarities are multiplied by before the softmax."""
        return self.model.logit_scale.exp().item()

    def embedded(self, gallery: Gallery) -> Tensor:
        """(G, D) unit vectors of a gallery, on the model's device; from the cache where they are there."""
        cache = cache_dir() / "galleries" if self.keep_gallery else None
        return embedded_gallery(self.model.location_encoder, gallery, self.world.device, cache)


def load_model(source: ModelSourceConfig, *, needs_backbone: bool = True, predicting: bool = False) -> LoadedModel:
    """Load the model and the gallery that a configuration names.

    Args:
        source: checkpoint, gallery, device, test-time augmentation.
        needs_backbone: whether images will be embedded; precomputed features need no CLIP.
        predicting: whether to normalise pixels as prediction does, where that is not as in training and evaluation.

    Raises:
        GeoclipError: a checkpoint, an asset or a gallery that cannot be read; the message names the fix.
    """
    world = initialise(source.device)
    checkpoint = resolve_checkpoint(source.checkpoint, source.runs_dir)
    model, encoder, own_gallery = read_model(checkpoint, (source.backbone or OWN) if needs_backbone else None)
    if source.backbone:
        encoder = replace(encoder, repo=source.backbone)
    if predicting and encoder.prediction_mean and encoder.prediction_std:
        model.image_encoder.normalise_by(encoder.prediction_mean, encoder.prediction_std)
    if checkpoint.kind in (CheckpointKind.run, CheckpointKind.published):
        log.info("checkpoint %s", checkpoint.files[0])
    gallery = own_gallery if source.gallery.kind is GalleryKind.own else source.gallery
    return LoadedModel(
        model=model.to(world.device).eval(),
        world=world,
        name=checkpoint.name,
        folder=checkpoint.results,
        sha256=checkpoint.sha256(),
        preprocessing=build_preprocessing(encoder, source.tta, max_pixels=source.max_pixels),
        gallery=build_gallery(gallery),
        is_own_gallery=_with_real_path(gallery) == _with_real_path(own_gallery),
        encoder=encoder_identity(encoder),
        keep_gallery=source.keep_gallery,
    )


def _with_real_path(gallery: GalleryConfig) -> GalleryConfig:
    """So that one file is one gallery, however its path is written."""
    return replace(gallery, path=gallery.path and os.path.realpath(gallery.path))
