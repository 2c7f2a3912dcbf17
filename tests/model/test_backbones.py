"""Backbones on small models of the real architectures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.utils.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from geoclip.config import EncoderConfig, EncoderKind
from geoclip.errors import AssetError, GeoclipError
from geoclip.factory.model import build_backbone, build_image_encoder, build_model
from geoclip.model.backbones import ClipBackbone, DinoBackbone, SiglipBackbone, ViTBackbone

Encoders = Callable[..., EncoderConfig]
PIXELS = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
CLIP = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
DINO = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
SIGLIP = (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)


def projected(folder: Path, pixel_values: Tensor) -> Tensor:
    clip = transformers.CLIPModel.from_pretrained(folder).eval()
    pooled = clip.vision_model(pixel_values=pixel_values).pooler_output
    out: Tensor = clip.visual_projection(pooled)
    return out


def pooled(folder: Path, pixel_values: Tensor) -> Tensor:
    siglip = transformers.SiglipModel.from_pretrained(folder).eval()
    out: Tensor = siglip.vision_model(pixel_values=pixel_values).pooler_output
    return out


def class_token(folder: Path, pixel_values: Tensor) -> Tensor:
    dino = transformers.AutoModel.from_pretrained(folder).eval()
    out: Tensor = dino(pixel_values=pixel_values).last_hidden_state[:, 0]
    return out


REFERENCES: dict[str, tuple[Callable[[Path, Tensor], Tensor], Any]] = {
    "clip_vit_l14": (projected, CLIP),
    "openclip_vit_h14": (projected, CLIP),
    "siglip2_b16": (pooled, SIGLIP),
    "dinov2_b14": (class_token, DINO),
    "dinov3_b16": (class_token, DINO),
}


@pytest.mark.parametrize("option", REFERENCES)
def test_features_are_those_of_transformers(
    option: str, small_encoder: Encoders, pretrained: Callable[[str], Path]
) -> None:
    reference, (mean, std) = REFERENCES[option]
    encoder = build_image_encoder(small_encoder(option), embedding_dim=4)
    shape = (1, 3, 1, 1)
    normalised = (PIXELS / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.no_grad():
        expected = reference(pretrained(option), normalised)
    features = encoder.features(PIXELS)
    assert features.shape == (3, encoder.feature_dim)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert features.std(dim=0).min() > 1e-4


@pytest.mark.parametrize("option", [*REFERENCES, "vit_tiny"])
def test_it_loads_and_trains_a_step(option: str, small: Callable[..., Any]) -> None:
    config = small(option, "encoder.tune=full")
    model = build_model(config).train()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    image_BD, location_MD, scale = model(PIXELS, torch.tensor([[10.0, 20.0], [-50.0, 0.0], [5.0, 6.0]]))[:3]
    loss = torch.nn.functional.cross_entropy(scale * image_BD @ location_MD.T, torch.arange(3))
    loss.backward()
    optimizer.step()
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    backbone = {name for name in moved if name.startswith("image_encoder.backbone.")}
    assert loss.isfinite() and any("embed" in name for name in backbone)
    assert len(moved) > len(backbone)


def test_a_tiny_vit_is_a_function_of_the_seed(small: Callable[..., Any]) -> None:
    first, again, other = (build_model(small("vit_tiny", f"seed={seed}")) for seed in (0, 0, 1))
    assert isinstance(first.image_encoder.backbone, ViTBackbone)
    features = [model.eval().image_encoder.features(PIXELS) for model in (first, again, other)]
    assert torch.equal(features[0], features[1]) and not torch.allclose(features[0], features[2])


@pytest.mark.parametrize("option", ["clip_vit_l14", "siglip2_b16", "dinov2_b14"])
def test_weights_in_half_precision_are_read_in_full(
    option: str, small_encoder: Encoders, pretrained: Callable[[str], Path], tmp_path: Path
) -> None:
    transformers.AutoModel.from_pretrained(pretrained(option)).half().save_pretrained(tmp_path)
    config = replace(small_encoder(option), repo=str(tmp_path))
    full, half = (build_image_encoder(one, 4).features(PIXELS) for one in (small_encoder(option), config))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("option", REFERENCES)
def test_reading_a_backbone_draws_no_random_number(option: str, small_encoder: Encoders) -> None:
    """Otherwise training would start elsewhere than with the backbone's precomputed features."""
    config = small_encoder(option)
    before = torch.random.get_rng_state()
    build_backbone(config)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("backbone", [ClipBackbone, SiglipBackbone, DinoBackbone])
def test_unreachable_weights_name_the_key_to_set(backbone: Any) -> None:
    with pytest.raises(AssetError, match=r"no-such-model.* set encoder\.repo"):
        backbone.from_pretrained("no-such-organisation/no-such-model")


@pytest.mark.parametrize(
    ("kind", "found", "fix"),
    [
        ("clip", "dinov2_b14", "encoder.kind=dino,"),
        ("clip", "siglip2_b16", "encoder.kind=siglip,"),
        ("siglip", "clip_vit_l14", "encoder.kind=clip,"),
        ("dino", "clip_vit_l14", "encoder.kind=clip,"),
    ],
)
def test_another_architecture_is_named(kind: str, found: str, fix: str, small_encoder: Encoders) -> None:
    config = replace(small_encoder(found), kind=EncoderKind(kind))
    with pytest.raises(GeoclipError, match=rf"encoder\.kind={kind}") as error:
        build_image_encoder(config, 4)
    assert fix in str(error.value) and config.repo in str(error.value)


def test_siglip_2_of_any_resolution_is_refused(small_encoder: Encoders, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "siglip2"}')
    with pytest.raises(GeoclipError, match=r"siglip2.*google/siglip2-base-patch16-224"):
        build_image_encoder(replace(small_encoder("siglip2_b16"), repo=str(tmp_path)), 4)


@pytest.mark.skipif(hasattr(transformers, "DINOv3ViTModel"), reason="this transformers has DINOv3")
def test_an_old_transformers_is_named(small_encoder: Encoders, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov3_vit"}')
    with pytest.raises(GeoclipError, match=r"dinov3_vit.* pip install"):
        build_image_encoder(replace(small_encoder("dinov2_b14"), repo=str(tmp_path)), 4)


@pytest.mark.parametrize(
    ("option", "key", "value", "fix"),
    [
        ("clip_vit_l14", "feature_dim", 768, 12),
        ("dinov2_b14", "feature_dim", 12, 16),
        ("clip_vit_l14", "image_px", 24, 16),
        ("siglip2_b16", "image_px", 32, 16),
        ("dinov2_b14", "image_px", 30, 24),
    ],
)
def test_a_size_that_does_not_fit_names_the_one_that_does(
    option: str, key: str, value: int, fix: int, small: Callable[..., Any]
) -> None:
    with pytest.raises(GeoclipError, match=rf"encoder\.{key}={value}\b.*encoder\.{key}={fix}\b"):
        build_model(small(option, f"encoder.{key}={value}"))


def test_dino_takes_any_multiple_of_its_patches(small_encoder: Encoders) -> None:
    encoder = build_image_encoder(replace(small_encoder("dinov2_b14"), image_px=40), 4)
    assert encoder.features(torch.zeros(1, 3, 40, 40, dtype=torch.uint8)).shape == (1, 16)


def test_missing_weights_are_refused(
    small_encoder: Encoders, pretrained: Callable[[str], Path], tmp_path: Path
) -> None:
    """A vision tower without its projection would get a random one."""
    tower = transformers.CLIPVisionModel.from_pretrained(pretrained("clip_vit_l14"))
    tower.save_pretrained(tmp_path)
    with pytest.raises(GeoclipError, match="visual_projection"):
        build_image_encoder(replace(small_encoder("clip_vit_l14"), repo=str(tmp_path)), 4)


def test_corrupt_weights_are_refused(
    small_encoder: Encoders, pretrained: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(pretrained("dinov2_b14"), tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(GeoclipError, match="copy"):
        build_image_encoder(replace(small_encoder("dinov2_b14"), repo=str(tmp_path / "copy")), 4)
