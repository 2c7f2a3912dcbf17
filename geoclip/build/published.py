"""Every kind of trained model, read: releases, published folders and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from geoclip.build.model import assemble_model, config_of, model_from_checkpoint
from geoclip.config import EncoderConfig, EncoderKind, GalleryConfig, GalleryKind, TrainConfig, Tune
from geoclip.data.assets import asset_path
from geoclip.errors import CheckpointError
from geoclip.model.backbones import ClipBackbone
from geoclip.model.from_release import OWN, location_encoder_of, model_of
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.releases import FORMAT_VERSION, Release, read_release, read_release_config
from geoclip.pretrained.resolver import Checkpoint, CheckpointKind, resolve_checkpoint

CLIP_PX = 224


def load(source: str | Path = "official", *, backbone: str | None = OWN, **download: Any) -> GeoCLIP:
    """Any released or trained model in evaluation mode.

    Args:
        source: "official", the weights inside the pinned wheel on the package index; a Hub id or local folder in the
            authors' layout (config.json, model.safetensors) or in ours; a .ckpt of the Lightning re-implementation; a
            run's folder or checkpoint.
        backbone: its CLIP as a Hub id or local folder; "own", the Hub id that the source names; None leaves out a
            frozen one, for precomputed CLIP features through `encode_features`. A trained one is in the weights.
        download: revision, token, cache_dir, local_files_only, for a Hub id.

    Raises:
        AssetError: the source or its backbone is neither at hand nor reachable.
        CheckpointError: it is corrupt, or of another architecture.
    """
    return read_model(resolve_checkpoint(source, hub_ids=True, **download), backbone, **download)[0]


def load_location_encoder(source: str | Path = "official", **download: Any) -> nn.Module:
    """The location encoder of any released or trained model; arguments and errors as of `load`."""
    return read_location_encoder(resolve_checkpoint(source, hub_ids=True, **download))


def read_model(
    checkpoint: Checkpoint, backbone: str | None = OWN, **download: Any
) -> tuple[GeoCLIP, EncoderConfig, GalleryConfig]:
    """A model in evaluation mode, how its images are prepared, and the gallery that belongs to it.

    Args:
        checkpoint: see `resolve_checkpoint`.
        backbone: its CLIP as a Hub id or local folder; `own`: the one that it names; None: without a frozen one.
        download: for a backbone that a release names with a revision.

    Raises:
        AssetError: the backbone is neither a local folder nor reachable.
        CheckpointError: corrupt, of another architecture, or a location encoder alone.
    """
    match checkpoint.kind:
        case CheckpointKind.run:
            model, config = model_from_checkpoint(checkpoint.files[0], backbone=backbone)
        case CheckpointKind.published:
            model, config = _read_published(checkpoint.folder, backbone)
        case CheckpointKind.official | CheckpointKind.authors | CheckpointKind.lightning:
            release = read_release(checkpoint.files)
            model = model_of(release, backbone, **download)
            return model, _encoder_of(release, model), _gallery_of(release)
    return model, config.encoder, config.gallery


def read_location_encoder(checkpoint: Checkpoint) -> nn.Module:
    """The location encoder alone, (N, 2) degrees -> (N, D) not normalised, in evaluation mode on the CPU.

    Raises:
        CheckpointError: corrupt, or of another architecture.
    """
    if checkpoint.kind in (CheckpointKind.run, CheckpointKind.published):
        return read_model(checkpoint, None)[0].location_encoder
    return location_encoder_of(read_release(checkpoint.files))


def _encoder_of(release: Release, model: GeoCLIP) -> EncoderConfig:
    clip = model.image_encoder.backbone
    return EncoderConfig(
        name="clip",
        kind=EncoderKind.clip,
        repo=release.backbone,
        image_px=clip.image_px if isinstance(clip, ClipBackbone) else CLIP_PX,
        tune=Tune.frozen,
        feature_dim=model.image_encoder.feature_dim,
    )


def _gallery_of(release: Release) -> GalleryConfig:
    """The gallery that came with a release; the authors' own where none did."""
    if release.gallery_csv is None or release.gallery_csv == asset_path("gallery_100k.csv"):
        return GalleryConfig(name="released_100k", kind=GalleryKind.released)
    return GalleryConfig(name=release.gallery_csv.stem, path=str(release.gallery_csv))


def _read_published(folder: Path, backbone: str | None) -> tuple[GeoCLIP, TrainConfig]:
    """The model, and its configuration, whose gallery is the folder's own.

    Raises:
        CheckpointError: corrupt, or written by another version, whose configuration this one does not know.
    """
    config_json, weights = folder / "config.json", folder / "model.safetensors"
    try:
        described = read_release_config(folder)
        tensors = safetensors.torch.load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({' '.join(str(error).split())[:200]}); fetch it again, or take the version of "
            "geoclip that its README.md names"
        ) from error
    version, gallery = described.get("format_version"), described.get("gallery_file")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_json}: format_version={version!r} is not {FORMAT_VERSION}; take the version of geoclip that its "
            "README.md names"
        )
    config = config_of(described, config_json)
    if gallery is None and config.gallery.kind is GalleryKind.file:
        raise CheckpointError(f"{config_json}: gallery_file must name the CSV of the gallery {config.gallery.name!r}")
    if gallery is not None:
        if Path(str(gallery)).name != gallery or not (folder / gallery).is_file():
            raise CheckpointError(f"{config_json}: gallery_file={gallery!r} must name a CSV beside it")
        config = replace(config, gallery=GalleryConfig(name=config.gallery.name, path=str(folder / gallery)))
    return assemble_model(config, tensors, weights, backbone), config
