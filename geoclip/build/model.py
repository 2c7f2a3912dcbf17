"""Models, from configuration or checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from geoclip.build.encoder import build_image_encoder
from geoclip.config import Combine, LocationConfig, LocationKind, LossKind, TrainConfig, from_plain
from geoclip.errors import CheckpointError, GeoclipError
from geoclip.geo.fourier import spaced_sigmas
from geoclip.model.from_release import OWN, location_encoder_of
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.location_baselines import DirectEncoder, Sphere2VecEncoder, SphericalHarmonicsEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.releases import read_release
from geoclip.model.warm_start import take_up_scales
from geoclip.pretrained.resolver import resolve_checkpoint
from geoclip.run_dir import checkpoint_file, located, run_of, to_dict
from geoclip.training.checkpoint import read_checkpoint
from geoclip.training.state import BACKBONE, load_location_encoder, load_weights

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
        config = from_plain(saved.get("config"), TrainConfig)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return from_plain(located(to_dict(config), run_of(path), saved.get("cwd", "")), TrainConfig)


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
