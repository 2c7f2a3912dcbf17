"""From configuration to networks: image encoder, location encoder, GeoCLIP."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from geoclip.config import (
    Combine,
    EncoderConfig,
    EncoderKind,
    LocationConfig,
    LocationKind,
    LossKind,
    TrainConfig,
    Tune,
    from_dict,
)
from geoclip.errors import CheckpointError, GeoclipError
from geoclip.geo.encodings import spaced_sigmas
from geoclip.model.backbones import ClipBackbone, DinoBackbone, ResNetBackbone, SiglipBackbone, ViTBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder, add_lora, checkpoint_activations, tune_last_blocks
from geoclip.model.location_baselines import DirectEncoder, Sphere2VecEncoder, SphericalHarmonicsEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.pretrained.releases import OWN, location_encoder_of, read_release
from geoclip.pretrained.resolver import resolve_checkpoint
from geoclip.pretrained.warm_start import take_up_scales
from geoclip.runs.run_dir import checkpoint_file, located, run_of, to_dict
from geoclip.training.checkpoint import read_checkpoint
from geoclip.training.state import BACKBONE, load_backbone, load_location_encoder, load_weights

# What tells two backbones apart: their weights' source, or how they are built where they are trained from scratch.
IDENTITY = {
    EncoderKind.clip: ("kind", "repo", "feature_dim"),
    EncoderKind.siglip: ("kind", "repo", "feature_dim"),
    EncoderKind.dino: ("kind", "repo", "feature_dim"),
    EncoderKind.resnet: ("kind", "repo", "feature_dim", "stem_dim", "widths", "depths"),
    EncoderKind.vit: ("kind", "repo", "feature_dim", "image_px", "patch_px", "blocks", "heads"),
}


def build_backbone(encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone; pretrained weights are fetched or read here, random ones drawn from torch's global generator.

    Raises:
        GeoclipError: they are nowhere, or differ from the configuration.
    """
    match encoder.kind:
        case EncoderKind.clip:
            return _fitting(ClipBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.siglip:
            return _fitting(SiglipBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.dino:
            return _fitting(DinoBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.resnet:
            return _from_run(
                ResNetBackbone(stem_dim=encoder.stem_dim, widths=encoder.widths, depths=encoder.depths), encoder
            )
        case EncoderKind.vit:
            return _from_run(
                ViTBackbone(
                    image_px=encoder.image_px,
                    patch_px=encoder.patch_px,
                    blocks=encoder.blocks,
                    heads=encoder.heads,
                    feature_dim=encoder.feature_dim,
                ),
                encoder,
            )


def _from_run(backbone: torch.nn.Module, encoder: EncoderConfig) -> torch.nn.Module:
    """With the weights of a trained run's backbone, where one is named."""
    if encoder.repo:
        load_backbone(backbone, checkpoint_file(encoder.repo))
    return backbone


def _fitting(backbone: ClipBackbone | SiglipBackbone | DinoBackbone, encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone, if it takes such pictures and gives so many features.

    Raises:
        GeoclipError: it does not.
    """
    where = f"the backbone in encoder.repo={encoder.repo}"
    if backbone.feature_dim != encoder.feature_dim:
        raise GeoclipError(
            f"encoder.feature_dim={encoder.feature_dim}, but {where} gives {backbone.feature_dim} features: "
            f"set encoder.feature_dim={backbone.feature_dim}"
        )
    if isinstance(backbone, DinoBackbone):
        if over := encoder.image_px % backbone.patch_px:
            below = encoder.image_px - over
            raise GeoclipError(
                f"encoder.image_px={encoder.image_px} is no multiple of {backbone.patch_px}, the patches of {where}: "
                f"set encoder.image_px={below or below + backbone.patch_px}"
            )
    elif backbone.image_px != encoder.image_px:
        raise GeoclipError(
            f"encoder.image_px={encoder.image_px}, but {where} takes pictures of {backbone.image_px} pixels: "
            f"set encoder.image_px={backbone.image_px}"
        )
    return backbone


def tune_backbone(backbone: torch.nn.Module, encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone, set up so that what is to be trained of it is trained; a frozen one as it is.

    Raises:
        GeoclipError: this backbone cannot be tuned that way.
    """
    try:
        match encoder.tune:
            case Tune.frozen | Tune.full:
                pass
            case Tune.last_blocks:
                tune_last_blocks(backbone, encoder.last_blocks)
            case Tune.lora:
                add_lora(backbone, rank=encoder.lora_rank, alpha=encoder.lora_alpha)
        if encoder.checkpoint_activations:
            checkpoint_activations(backbone)
    except ValueError as error:
        raise GeoclipError(f"encoder={encoder.name} with encoder.tune={encoder.tune.value}: {error}") from error
    return backbone


def build_image_encoder(encoder: EncoderConfig, embedding_dim: int) -> ImageEncoder:
    """The image encoder; without a backbone where it is trained on that backbone's features."""
    return ImageEncoder(
        None if encoder.features else tune_backbone(build_backbone(encoder), encoder),
        feature_dim=encoder.feature_dim,
        hidden_dim=encoder.hidden_dim,
        embedding_dim=embedding_dim,
        mean=encoder.mean,
        std=encoder.std,
        frozen=encoder.frozen,
    )


def encoder_identity(encoder: EncoderConfig) -> dict[str, Any]:
    """What makes two backbones the same, as far as a configuration tells; a trained one is no longer its source."""
    known = to_dict(encoder)
    return {key: known[key] for key in IDENTITY[encoder.kind]} | (
        {} if encoder.frozen else {"tune": encoder.tune.value}
    )


log = logging.getLogger("geoclip")

WITHOUT_BACKBONE = "without backbone"  # encoder.features of a model that is built without it
SIGMOID_BIAS = -10.0  # Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2


class _Widths(TypedDict):
    hidden_dim: int
    depth: int
    embedding_dim: int


def build_location_encoder(location: LocationConfig) -> torch.nn.Module:
    """The location encoder, (N, 2) degrees -> (N, D); what is random is drawn from torch's global generator.

    Raises:
        GeoclipError: what it is to start from cannot be read, or does not fit.
    """
    widths: _Widths = {
        "hidden_dim": location.hidden_dim,
        "depth": location.depth,
        "embedding_dim": location.embedding_dim,
    }
    match location.kind:
        case LocationKind.fourier:
            encoder = LocationEncoder(
                sigmas_of(location),
                frequencies=location.frequencies,
                projection=location.projection.value,
                concat=location.combine is Combine.concat,
                share_mlp=location.share_mlp,
                learn_frequencies=location.learn_frequencies,
                **widths,
            )
            if location.init:
                _start_from(encoder, location)
            return encoder
        case LocationKind.spherical_harmonics:
            return SphericalHarmonicsEncoder(degree=location.degree, **widths)
        case LocationKind.sphere2vec:
            return Sphere2VecEncoder(
                location.sphere2vec.value, scales=location.scales, min_radius_km=location.min_radius_km, **widths
            )
        case LocationKind.direct:
            return DirectEncoder(projection=location.projection.value, **widths)


def sigmas_of(location: LocationConfig) -> list[float]:
    """The scales of a hierarchy: those listed, or evenly spaced ones."""
    if location.sigmas is not None:
        return location.sigmas
    return spaced_sigmas(location.sigma_min, location.sigma_max, location.scales)


def _start_from(encoder: LocationEncoder, location: LocationConfig) -> None:
    """Take up the scales of the released location encoder or of a run's."""
    try:
        if location.init == "official":
            trained: torch.nn.Module = location_encoder_of(read_release(resolve_checkpoint("official").files))
        else:
            saved = read_checkpoint(checkpoint_file(location.init))
            trained = build_location_encoder(replace(config_of(saved, Path(location.init)).location, init=""))
            load_location_encoder(trained, saved, Path(location.init))
        if not isinstance(trained, LocationEncoder):
            raise ValueError("it is no hierarchy of Fourier features")
        taken = take_up_scales(encoder, trained, freeze=location.freeze_init)
    except ValueError as error:
        raise GeoclipError(f"location.init={location.init}: {error}") from error
    log.info("the scales %s start from %s", ", ".join(f"{sigma:g}" for sigma in taken), location.init)


def build_model(config: TrainConfig) -> GeoCLIP:
    """The model with its first weights: a function of the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return GeoCLIP(
            build_image_encoder(config.encoder, config.location.embedding_dim),
            build_location_encoder(config.location),
            temperature=config.loss.temperature,
            learn_temperature=config.loss.learn_temperature,
            bias=SIGMOID_BIAS if config.loss.kind is LossKind.sigmoid else None,
        )


def config_of(saved: dict[str, Any], path: Path) -> TrainConfig:
    """The configuration that a checkpoint was trained with, with paths that hold in any folder.

    Args:
        saved: what came with the weights.
        path: its file, for messages, and where its run's relative paths begin.

    Raises:
        CheckpointError: another version of geoclip wrote it, or somebody who wants more than to share weights.
    """
    try:
        config = from_dict(saved.get("config"), TrainConfig)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return from_dict(located(to_dict(config), run_of(path), saved.get("cwd", "")), TrainConfig)


def model_from_checkpoint(path: Path, *, backbone: str | None = OWN) -> tuple[GeoCLIP, TrainConfig]:
    """A trained model in evaluation mode, and its configuration.

    Args:
        path: a checkpoint.
        backbone: see `assemble_model`.

    Raises:
        CheckpointError: corrupt, or of another architecture.
    """
    saved = read_checkpoint(path)
    config = config_of(saved, path)
    return assemble_model(config, saved["model"], path, backbone), config


def assemble_model(config: TrainConfig, weights: dict[str, Tensor], path: Path, backbone: str | None) -> GeoCLIP:
    """The model that a configuration describes, with these weights, in evaluation mode.

    Args:
        config: of the run.
        weights: its tensors.
        path: their file, for messages.
        backbone: a Hub id or local folder in place of encoder.repo; `own`: encoder.repo; None: the model has none,
            if it is frozen. A trained one is among the weights.

    Raises:
        AssetError: the backbone is neither a local folder nor reachable.
        CheckpointError: of another architecture.
    """
    encoder = replace(config.encoder, features="")
    if backbone is None and encoder.frozen:
        encoder = replace(encoder, features=WITHOUT_BACKBONE)
        weights = {name: one for name, one in weights.items() if not name.startswith(BACKBONE)}
    elif backbone not in (None, OWN):
        encoder = replace(encoder, repo=backbone)
    # The weights are at hand: what they once started from may be gone.
    model = build_model(replace(config, encoder=encoder, location=replace(config.location, init="")))
    load_weights(model, weights, path)
    return model.eval()
