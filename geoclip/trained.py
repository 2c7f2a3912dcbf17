"""From the name of a checkpoint to a model that can be asked: shared by evaluation and prediction."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoclip.build import build_gallery, build_preprocessing, encoder_identity, model_from_checkpoint
from geoclip.config import GalleryConfig, GalleryKind, ModelSourceConfig
from geoclip.data.preprocessing import Preprocessing
from geoclip.distributed import World, initialise
from geoclip.evaluation.gallery import Gallery
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.releases import Release, is_release, model_of, read_release
from geoclip.run_dir import checkpoint_file

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
    encoder: dict[str, Any]  # whose features it takes


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
    if is_release(source.checkpoint):
        release = read_release(source.checkpoint)
        model = model_of(release, source.backbone if needs_backbone else None)
        own = _gallery_of(release, source.checkpoint)
        name = "official" if source.checkpoint == "official" else Path(source.checkpoint).stem
        folder, files = Path(source.runs_dir) / name, list(release.files)
        preprocessing = Preprocessing(image_px=CLIP_PX, tta=source.tta.value)
        encoder = {"kind": "clip", "repo": source.backbone, "feature_dim": model.image_encoder.feature_dim}
    else:
        path = checkpoint_file(source.checkpoint, source.runs_dir)
        model, config = model_from_checkpoint(path, needs_backbone=needs_backbone)
        own, files = config.gallery, [path]
        preprocessing = build_preprocessing(config.encoder, source.tta)
        encoder = encoder_identity(config.encoder)
        if predicting and config.encoder.prediction_mean and config.encoder.prediction_std:
            model.image_encoder.normalise_by(config.encoder.prediction_mean, config.encoder.prediction_std)
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        name = folder.resolve().name
        log.info("checkpoint %s", path)
    chosen = own if source.gallery.kind is GalleryKind.own else source.gallery
    return Trained(
        model=model.to(world.device).eval(),
        world=world,
        name=name,
        folder=folder,
        sha256=_sha256(files),
        preprocessing=preprocessing,
        gallery=build_gallery(chosen),
        encoder=encoder,
    )


def _gallery_of(release: Release, checkpoint: str) -> GalleryConfig:
    """The gallery that came with a release; the authors' own where none did."""
    if checkpoint == "official" or release.gallery_csv is None:
        return GalleryConfig(name="released_100k", kind=GalleryKind.released)
    return GalleryConfig(name=release.gallery_csv.stem, path=str(release.gallery_csv))


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest() if len(files) > 1 else file.read())
    return digest.hexdigest()
