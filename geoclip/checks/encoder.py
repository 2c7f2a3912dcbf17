"""Why an image encoder cannot be built."""

from __future__ import annotations

import os

from geoclip.config import EncoderConfig, EncoderKind, Fit, Tune


def encoder_problems(encoder: EncoderConfig) -> list[str]:
    """Reasons why this image encoder cannot be built."""
    problems = [
        f"encoder.{key}={getattr(encoder, key)} must be 1 or more"
        for key in ("image_px", "feature_dim", "hidden_dim", "stem_dim", "patch_px", "blocks", "heads")
        if getattr(encoder, key) < 1
    ]
    problems += _pixel_problems(encoder)
    problems += _tuning_problems(encoder)
    if encoder.features and not os.path.isdir(encoder.features):
        problems.append(
            f"encoder.features={encoder.features} is no folder; write it: python -m geoclip.features "
            "data=… encoder=…, or for the studies make study-features"
        )
    if encoder.name == "cached" and not encoder.features:
        problems.append(
            "encoder=cached needs encoder.features=FOLDER, which python -m geoclip.features writes; to train on "
            "pictures choose encoder=clip_vit_l14"
        )
    if encoder.features and not encoder.frozen:
        problems.append(f"encoder.features are of a frozen encoder, but encoder={encoder.name} is trained")
    match encoder.kind:
        case EncoderKind.clip | EncoderKind.siglip | EncoderKind.dino:
            if not encoder.repo:
                problems.append(
                    f"encoder.repo='' must name a Hub id or a local folder of {encoder.kind.value} weights"
                )
        case EncoderKind.resnet:
            problems += _from_scratch_problems(encoder) + _resnet_problems(encoder)
        case EncoderKind.vit:
            problems += _from_scratch_problems(encoder) + _vit_problems(encoder)
    return problems


def _pixel_problems(encoder: EncoderConfig) -> list[str]:
    """Of what is made of a picture's pixels."""
    problems = []
    for key in ("mean", "std", "prediction_mean", "prediction_std"):
        values = getattr(encoder, key)
        if values is not None and len(values) != 3:
            problems.append(f"encoder.{key}={values} must have three values: red, green, blue")
        elif values is not None and key.endswith("std") and any(value <= 0 for value in values):
            problems.append(f"encoder.{key}={values} must be positive")
    if (encoder.prediction_mean is None) != (encoder.prediction_std is None):
        problems.append(
            "encoder.prediction_mean and encoder.prediction_std go together: give both, or null for both"
        )
    if encoder.resize_px is not None and encoder.fit is Fit.squash:
        problems.append(
            f"encoder.resize_px={encoder.resize_px} is of encoder.fit=crop; with encoder.fit=squash it must be null"
        )
    elif encoder.resize_px is not None and encoder.resize_px < encoder.image_px:
        problems.append(
            f"encoder.resize_px={encoder.resize_px} must be encoder.image_px={encoder.image_px} or more, or null: "
            "the square is cut out of it"
        )
    return problems


def _tuning_problems(encoder: EncoderConfig) -> list[str]:
    """Of what is trained of the backbone."""
    problems = [
        f"encoder.{key}={getattr(encoder, key)} must be positive"
        for key in ("last_blocks", "lora_rank", "lora_alpha")
        if getattr(encoder, key) <= 0
    ]
    if encoder.frozen and encoder.checkpoint_activations:
        problems.append(
            "encoder.checkpoint_activations=true is for a trained backbone, but encoder.tune=frozen"
        )
    return problems


def _from_scratch_problems(encoder: EncoderConfig) -> list[str]:
    """Of a backbone with random weights, or those of a run."""
    problems = []
    if encoder.frozen and not encoder.repo:
        problems.append(
            "encoder.tune=frozen would keep a random backbone; name the run whose backbone it is: "
            "encoder.repo=runs/NAME"
        )
    if encoder.repo and not os.path.exists(encoder.repo):
        problems.append(f"encoder.repo={encoder.repo} is neither a run's folder nor a .pt file")
    return problems


def _resnet_problems(encoder: EncoderConfig) -> list[str]:
    problems = []
    if len(encoder.widths) != len(encoder.depths) or not encoder.widths:
        problems.append(
            f"encoder.widths={encoder.widths} and encoder.depths={encoder.depths} must be equally long"
        )
    elif min(*encoder.widths, *encoder.depths) < 1:
        problems.append("encoder.widths and encoder.depths must be 1 or more")
    elif encoder.feature_dim != encoder.widths[-1]:
        problems.append(
            f"encoder.feature_dim={encoder.feature_dim} must equal the last of "
            f"encoder.widths={encoder.widths}, which the backbone puts out"
        )
    if encoder.tune is Tune.lora or encoder.checkpoint_activations:
        problems.append(
            f"encoder={encoder.name} has no attention: encoder.tune=lora and "
            "encoder.checkpoint_activations=true are for transformers such as encoder=clip_vit_l14"
        )
    if encoder.tune is Tune.last_blocks and encoder.last_blocks > len(encoder.depths):
        problems.append(
            f"encoder.last_blocks={encoder.last_blocks} are more than the {len(encoder.depths)} stages of "
            f"encoder.depths={encoder.depths}"
        )
    return problems


def _vit_problems(encoder: EncoderConfig) -> list[str]:
    problems = []
    if encoder.patch_px > 0 and encoder.image_px % encoder.patch_px:
        problems.append(
            f"encoder.image_px={encoder.image_px} does not divide into patches of encoder.patch_px={encoder.patch_px}"
            f"; try encoder.image_px={max(1, encoder.image_px // encoder.patch_px) * encoder.patch_px}"
        )
    if encoder.heads > 0 and encoder.feature_dim % encoder.heads:
        problems.append(
            f"encoder.feature_dim={encoder.feature_dim} does not divide over encoder.heads={encoder.heads}; try "
            f"encoder.feature_dim={max(1, encoder.feature_dim // encoder.heads) * encoder.heads}"
        )
    if encoder.tune is Tune.last_blocks and encoder.last_blocks > encoder.blocks:
        problems.append(
            f"encoder.last_blocks={encoder.last_blocks} are more than encoder.blocks={encoder.blocks}"
        )
    if encoder.tune is Tune.lora and not encoder.repo:
        problems.append(
            "encoder.tune=lora would keep a random backbone below the additions; name the run whose backbone it is: "
            "encoder.repo=runs/NAME"
        )
    return problems
