"""Image encoder configurations: which backbones are equal, and which cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from geoclip.config import EncoderConfig, Tune, encoder_problems
from geoclip.factory.model import encoder_identity

Encoders = Callable[..., EncoderConfig]
MODELS = ("clip_vit_l14", "openclip_vit_h14", "siglip2_b16", "dinov2_b14", "dinov3_b16")


def test_no_two_backbones_are_taken_for_each_other(small_encoder: Encoders) -> None:
    options = ("clip_vit_l14", "siglip2_b16", "dinov2_b14", "vit_tiny", "resnet_tiny")
    encoders = [small_encoder(option) for option in options]
    clip, _, _, vit, resnet = encoders
    encoders += [replace(clip, repo="other"), replace(clip, feature_dim=7), replace(clip, tune=Tune.lora)]
    encoders += [replace(vit, patch_px=4), replace(vit, blocks=3), replace(vit, heads=4)]
    encoders += [replace(vit, image_px=32), replace(resnet, depths=[1, 1, 1, 2]), replace(resnet, stem_dim=8)]
    encoders += [replace(resnet, repo="runs/a")]
    identities = [encoder_identity(encoder) for encoder in encoders]
    assert all(one not in identities[:number] for number, one in enumerate(identities))
    same = replace(clip, hidden_dim=99, mean=[0.0, 0.0, 0.0])
    assert encoder_identity(same) == identities[0], "MLP and normalisation are not part of the backbone"


@pytest.mark.parametrize(
    ("option", "overrides", "begin"),
    [
        ("siglip2_b16", "repo=", "encoder.repo='':"),
        ("dinov2_b14", "repo=", "encoder.repo='':"),
        ("vit_tiny", "patch_px=7", "encoder.image_px=16:"),
        ("vit_tiny", "heads=3", "encoder.feature_dim=16:"),
        ("vit_tiny", "tune=frozen", "encoder.tune=frozen:"),
        ("vit_tiny", "tune=lora", "encoder.tune=lora:"),
        ("vit_tiny", "repo=nowhere", "encoder.repo=nowhere:"),
        ("vit_tiny", "tune=last_blocks last_blocks=3", "encoder.last_blocks=3:"),
        ("dinov2_b14", "resize_px=8", "encoder.resize_px=8:"),
        ("siglip2_b16", "resize_px=20", "encoder.resize_px=20:"),
        ("clip_vit_l14", "prediction_mean=[0,0,0]", "encoder.prediction_mean"),
        ("clip_vit_l14", "prediction_std=[1,1]", "encoder.prediction_std=[1.0, 1.0]:"),
    ],
)
def test_what_cannot_be_built_is_named(option: str, overrides: str, begin: str, small_encoder: Encoders) -> None:
    problems = encoder_problems(small_encoder(option, *(f"encoder.{override}" for override in overrides.split())))
    assert any(begin in problem for problem in problems), problems


@pytest.mark.parametrize("option", [*MODELS, "vit_tiny"])
def test_what_can_be_built_has_no_problem(option: str, small_encoder: Encoders) -> None:
    assert encoder_problems(small_encoder(option)) == []
