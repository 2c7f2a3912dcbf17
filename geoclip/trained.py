"""From the name of a checkpoint to a model that can be asked: shared by evaluation and prediction."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from geoclip.build import build_gallery, build_preprocessing, encoder_identity, model_from_checkpoint
from geoclip.build.published import read_published
from geoclip.config import GalleryConfig, GalleryKind, ModelSourceConfig
from geoclip.data.assets import asset_path, cache_dir
from geoclip.data.transforms import Preprocessing
from geoclip.distributed import World, initialise
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.gallery_cache import embedded_gallery
from geoclip.model.backbones import ClipBackbone
from geoclip.model.from_release import OWN, model_of
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.hub import local_copy
from geoclip.model.releases import Release, is_ours, is_release, read_release, release_name
from geoclip.run_dir import checkpoint_file, run_of

log = logging.getLogger("geoclip")

CLIP_PX = 224


@dataclass(kw_only=True, slots=True)
class Trained:
    """A trained model on its device, and what results say of it."""

    model: GeoCLIP
    world: World
    name: str
    folder: Path  # where results go
    sha256: str  # of the checkpoint's file; of the released weights, of their files in order
    preprocessing: Preprocessing
    gallery: Gallery
    is_own_gallery: bool  # the one that it was validated with
    encoder: dict[str, Any]  # whose features it takes
    keep_gallery: bool

    def embedded(self, gallery: Gallery) -> Tensor:
        """(G, D) unit vectors of the gallery's places, on the model's device; from disk where they were kept."""
        kept = cache_dir() / "galleries" if self.keep_gallery else None
        return embedded_gallery(self.model.location_encoder, gallery, self.world.device, kept)


def open_trained(
    source: ModelSourceConfig, *, needs_backbone: bool = True, predicting: bool = False
) -> Trained:
    """Load the model and the gallery that a configuration names.

    Args:
        source: checkpoint, gallery, device, test-time augmentation.
        needs_backbone: whether pictures will be embedded; features computed before need no CLIP.
        predicting: whether to normalise pixels as prediction does, where that is not as in training and evaluation.

    Raises:
        GeoclipError: a checkpoint, an asset or a gallery that cannot be read; the message says what to do.
    """
    world = initialise(source.device)
    place = local_copy(source.checkpoint) if is_release(source.checkpoint) else None
    if is_release(source.checkpoint) and not is_ours(place):
        return _open_release(source, place, world, needs_backbone)
    if place is not None:  # written by geoclip.publish
        path, name = place / "model.safetensors", release_name(source.checkpoint)
        model, config = read_published(place, backbone=OWN if needs_backbone else None)
        folder = Path(source.runs_dir) / name
    else:
        path = checkpoint_file(source.checkpoint, source.runs_dir)
        model, config = model_from_checkpoint(path, needs_backbone=needs_backbone)
        folder = run_of(path)
        name = folder.resolve().name
    if predicting and config.encoder.prediction_mean and config.encoder.prediction_std:
        model.image_encoder.normalise_by(config.encoder.prediction_mean, config.encoder.prediction_std)
    log.info("checkpoint %s", path)
    return Trained(
        model=model.to(world.device).eval(),
        world=world,
        name=name,
        folder=folder,
        sha256=_sha256([path]),
        preprocessing=build_preprocessing(config.encoder, source.tta, max_pixels=source.max_pixels),
        gallery=build_gallery(_chosen(source, config.gallery)),
        is_own_gallery=_is_same(_chosen(source, config.gallery), config.gallery),
        encoder=encoder_identity(config.encoder),
        keep_gallery=source.keep_gallery,
    )


def _open_release(
    source: ModelSourceConfig, place: Path | None, world: World, needs_backbone: bool
) -> Trained:
    """The authors' model, or one in their layout or in that of the Lightning re-implementation."""
    release = read_release(place or source.checkpoint)
    model = model_of(release, (source.backbone or OWN) if needs_backbone else None)
    clip, name = model.image_encoder.backbone, release_name(source.checkpoint)
    repo, width = source.backbone or release.backbone, model.image_encoder.feature_dim
    image_px = clip.image_px if isinstance(clip, ClipBackbone) else CLIP_PX
    return Trained(
        model=model.to(world.device).eval(),
        world=world,
        name=name,
        folder=Path(source.runs_dir) / name,
        sha256=_sha256(list(release.files)),
        preprocessing=Preprocessing(image_px=image_px, tta=source.tta.value, max_pixels=source.max_pixels),
        gallery=build_gallery(_chosen(source, _gallery_of(release))),
        is_own_gallery=_is_same(_chosen(source, _gallery_of(release)), _gallery_of(release)),
        encoder={"kind": "clip", "repo": repo, "feature_dim": width},
        keep_gallery=source.keep_gallery,
    )


def _chosen(source: ModelSourceConfig, own: GalleryConfig) -> GalleryConfig:
    return own if source.gallery.kind is GalleryKind.own else source.gallery


def _is_same(one: GalleryConfig, other: GalleryConfig) -> bool:
    """Whether they are one file by one name, however its path is written."""
    one, other = (
        replace(gallery, path=gallery.path and os.path.realpath(gallery.path)) for gallery in (one, other)
    )
    return one == other


def _gallery_of(release: Release) -> GalleryConfig:
    """The gallery that came with a release; the authors' own where none did."""
    if release.gallery_csv is None or release.gallery_csv == asset_path("gallery_100k.csv"):
        return GalleryConfig(name="released_100k", kind=GalleryKind.released)
    return GalleryConfig(name=release.gallery_csv.stem, path=str(release.gallery_csv))


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest() if len(files) > 1 else file.read())
    return digest.hexdigest()
