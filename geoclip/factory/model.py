"""From configuration to networks: image encoder, location encoder, GeoCLIP."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from geoclip.pretrained.releases import OWN, location_encoder_of, read_release, take_up_scales
from geoclip.pretrained.resolver import resolve_checkpoint
from geoclip.runs.run_dir import checkpoint_file, located, run_of, to_dict
from geoclip.training.checkpoint import read_checkpoint
from geoclip.training.state import BACKBONE, load_backbone, load_location_encoder, load_weights

log = logging.getLogger("geoclip")

# Keys that identify a backbone: the source of its weights, and the architecture if it is trained from scratch.
IDENTITY = {
    EncoderKind.clip: ("kind", "repo", "feature_dim"),
    EncoderKind.siglip: ("kind", "repo", "feature_dim"),
    EncoderKind.dino: ("kind", "repo", "feature_dim"),
    EncoderKind.resnet: ("kind", "repo", "feature_dim", "stem_dim", "widths", "depths"),
    EncoderKind.vit: ("kind", "repo", "feature_dim", "image_px", "patch_px", "blocks", "heads"),
}


def build_backbone(encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone, with pretrained weights, or random ones from torch's global generator.

    Raises:
        GeoclipError: the weights are missing, or do not match the configuration.
    """
    backbone: torch.nn.Module
    match encoder.kind:
        case EncoderKind.clip:
            return _checked(ClipBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.siglip:
            return _checked(SiglipBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.dino:
            return _checked(DinoBackbone.from_pretrained(encoder.repo), encoder)
        case EncoderKind.resnet:
            backbone = ResNetBackbone(stem_dim=encoder.stem_dim, widths=encoder.widths, depths=encoder.depths)
        case EncoderKind.vit:
            backbone = ViTBackbone(
                image_px=encoder.image_px,
                patch_px=encoder.patch_px,
                blocks=encoder.blocks,
                heads=encoder.heads,
                feature_dim=encoder.feature_dim,
            )
    if encoder.repo:  # a trained run's backbone
        load_backbone(backbone, checkpoint_file(encoder.repo))
    return backbone


def _checked(backbone: ClipBackbone | SiglipBackbone | DinoBackbone, encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone; raises a GeoclipError if its sizes are not those of the configuration."""
    where = f"the backbone in encoder.repo={encoder.repo}"
    if backbone.feature_dim != encoder.feature_dim:
        raise GeoclipError(
            f"encoder.feature_dim={encoder.feature_dim}: {where} gives {backbone.feature_dim} features: set "
            f"encoder.feature_dim={backbone.feature_dim}"
        )
    if isinstance(backbone, DinoBackbone):
        if over := encoder.image_px % backbone.patch_px:
            below = encoder.image_px - over
            raise GeoclipError(
                f"encoder.image_px={encoder.image_px}: not a multiple of {backbone.patch_px}, the patches of {where}; "
                f"set encoder.image_px={below or below + backbone.patch_px}"
            )
    elif backbone.image_px != encoder.image_px:
        raise GeoclipError(
            f"encoder.image_px={encoder.image_px}: {where} takes pictures of {backbone.image_px} pixels: "
            f"set encoder.image_px={backbone.image_px}"
        )
    return backbone


def tune_backbone(backbone: torch.nn.Module, encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone, prepared for training by encoder.tune.

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
    """The image encoder; without a backbone if training reads features."""
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
    """The values that identify a backbone; a tuned one differs from its pretrained source."""
    known = to_dict(encoder)
    tuned = {} if encoder.frozen else {"tune": encoder.tune.value}
    return {key: known[key] for key in IDENTITY[encoder.kind]} | tuned


WITHOUT_BACKBONE = "without backbone"  # value of encoder.features: build the model without backbone
SIGMOID_BIAS = -10.0  # Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2


def build_location_encoder(location: LocationConfig) -> torch.nn.Module:
    """The location encoder, (N, 2) degrees -> (N, D); random weights are from torch's global generator.

    Raises:
        GeoclipError: location.init cannot be read, or has other shapes.
    """
    widths: Any = {name: getattr(location, name) for name in ("hidden_dim", "depth", "embedding_dim")}
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
    """The scales of a hierarchy: location.sigmas, or evenly spaced ones."""
    if location.sigmas is not None:
        return location.sigmas
    return spaced_sigmas(location.sigma_min, location.sigma_max, location.scales)


def _start_from(encoder: LocationEncoder, location: LocationConfig) -> None:
    """Copy the scales of location.init: the released location encoder or a run's."""
    try:
        if location.init == "official":
            trained: torch.nn.Module = location_encoder_of(read_release(resolve_checkpoint("official").files))
        else:
            saved = read_checkpoint(checkpoint_file(location.init))
            trained = build_location_encoder(replace(config_of(saved, Path(location.init)).location, init=""))
            load_location_encoder(trained, saved, Path(location.init))
        if not isinstance(trained, LocationEncoder):
            raise ValueError("is not a hierarchy of Fourier features")
        taken = take_up_scales(encoder, trained, freeze=location.freeze_init)
    except ValueError as error:
        raise GeoclipError(f"location.init={location.init}: {error}") from error
    log.info("the scales %s start from %s", ", ".join(f"{sigma:g}" for sigma in taken), location.init)


def build_model(config: TrainConfig) -> GeoCLIP:
    """The model at step 0, a function of the configuration and its seed."""
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
    """The configuration of a checkpoint, with paths that are valid from any working folder.

    Args:
        saved: the contents of the checkpoint.
        path: its file, for messages and to find its run folder.

    Raises:
        CheckpointError: unknown or invalid keys or values, e.g. of another version.
    """
    try:
        config = from_dict(saved.get("config"), TrainConfig)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return from_dict(located(to_dict(config), run_of(path), saved.get("cwd", "")), TrainConfig)


def model_from_checkpoint(path: Path, *, backbone: str | None = OWN) -> tuple[GeoCLIP, TrainConfig]:
    """A trained model in evaluation mode, and its configuration. `backbone`: see `assemble_model`.

    Raises:
        CheckpointError: corrupt, or of another architecture.
    """
    saved = read_checkpoint(path)
    config = config_of(saved, path)
    return assemble_model(config, saved["model"], path, backbone), config


def assemble_model(config: TrainConfig, weights: dict[str, Tensor], path: Path, backbone: str | None) -> GeoCLIP:
    """The model of a configuration with these weights, in evaluation mode.

    Args:
        config: of the run.
        weights: its tensors, a trained backbone included.
        path: their file, for messages.
        backbone: Hub id or local folder in place of encoder.repo; `own`: encoder.repo; None: without a frozen one.

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
    # init="": the weights are given, and location.init may no longer exist.
    model = build_model(replace(config, encoder=encoder, location=replace(config.location, init="")))
    load_weights(model, weights, path)
    return model.eval()
