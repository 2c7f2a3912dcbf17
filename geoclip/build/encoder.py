"""The image encoder, from configuration."""

from __future__ import annotations

from typing import Any

import torch

from geoclip.config import EncoderConfig, EncoderKind, Tune
from geoclip.errors import GeoclipError
from geoclip.model.backbones import ClipBackbone, DinoBackbone, ResNetBackbone, SiglipBackbone, ViTBackbone
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.tuning import add_lora, checkpoint_activations, tune_last_blocks
from geoclip.run_dir import checkpoint_file, to_dict
from geoclip.training.state import load_backbone

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
