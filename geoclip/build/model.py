"""Models, from configuration or checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from omegaconf import OmegaConf

from geoclip.config import (
    Combine,
    EncoderConfig,
    EncoderKind,
    LocationConfig,
    LocationKind,
    LossKind,
    TrainConfig,
    Tune,
)
from geoclip.errors import GeoclipError
from geoclip.geo.fourier import spaced_sigmas
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ClipBackbone, ImageEncoder, ResNetBackbone
from geoclip.model.location_baselines import DirectEncoder, Sphere2VecEncoder, SphericalHarmonicsEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.tuning import add_lora, checkpoint_activations, tune_last_blocks
from geoclip.model.warm_start import take_up_scales
from geoclip.run_dir import checkpoint_file, plain
from geoclip.training.checkpoint import read_checkpoint
from geoclip.training.state import load_backbone, load_location_encoder, load_weights

log = logging.getLogger("geoclip")

SIGMOID_BIAS = -10.0  # Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2


class _Widths(TypedDict):
    hidden_dim: int
    depth: int
    embedding_dim: int


def build_backbone(encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone; pretrained weights are fetched or read here."""
    match encoder.kind:
        case EncoderKind.clip:
            return ClipBackbone.from_pretrained(encoder.repo)
        case EncoderKind.resnet:
            resnet = ResNetBackbone(stem_dim=encoder.stem_dim, widths=encoder.widths, depths=encoder.depths)
            if encoder.repo:
                load_backbone(resnet, checkpoint_file(encoder.repo))
            return resnet


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
        raise GeoclipError(
            f"encoder={encoder.name} with encoder.tune={encoder.tune.value}: {error}"
        ) from error
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
                location.sphere2vec.value,
                scales=location.scales,
                min_radius_km=location.min_radius_km,
                **widths,
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
            trained: torch.nn.Module = LocationEncoder.from_pretrained("official")
        else:
            saved = read_checkpoint(checkpoint_file(location.init))
            trained = build_location_encoder(replace(config_of(saved).location, init=""))
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


def encoder_identity(encoder: EncoderConfig) -> dict[str, Any]:
    """What makes two backbones the same, as far as a configuration tells."""
    known = plain(encoder)
    return {key: known[key] for key in ("kind", "repo", "feature_dim")}


def config_of(saved: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was trained with."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), saved["config"]))
    assert isinstance(config, TrainConfig)
    return config


def model_from_checkpoint(path: Path, *, needs_backbone: bool = True) -> tuple[GeoCLIP, TrainConfig]:
    """A trained model in evaluation mode, and its configuration.

    Args:
        path: a checkpoint.
        needs_backbone: whether it will be asked about pictures; features need none, where it is frozen.

    Raises:
        CheckpointError: damaged, or of another architecture.
    """
    saved = read_checkpoint(path)
    config = config_of(saved)
    if needs_backbone:
        config = replace(config, encoder=replace(config.encoder, features=""))
    # Its weights are in the checkpoint: what they once started from may be gone.
    model = build_model(replace(config, location=replace(config.location, init="")))
    load_weights(model, saved, path)
    return model.eval(), config
