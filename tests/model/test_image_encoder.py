"""Image encoders on small models of the real architectures, written to a folder on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip import GeoCLIP, ImageEncoder, LocationEncoder
from geoclip.errors import AssetError
from geoclip.model.backbones import ClipBackbone, ResNetBackbone


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A random CLIP vision tower of two layers, as the Hub's files have it."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def pixels(seed: int, size_px: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 3, size_px, size_px), generator=generator, dtype=torch.uint8)


def test_clip_features_are_those_of_transformers(clip_folder: Path) -> None:
    encoder = ImageEncoder(ClipBackbone.from_pretrained(str(clip_folder)), feature_dim=24, frozen=True)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels(0)]
    reference = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        expected = reference(**processor(images=images, return_tensors="pt")).image_embeds
    torch.testing.assert_close(encoder.features(pixels(0)), expected, atol=1e-5, rtol=0)


def test_a_frozen_backbone_never_moves(clip_folder: Path) -> None:
    encoder = ImageEncoder(ClipBackbone.from_pretrained(str(clip_folder)), feature_dim=24, embedding_dim=8, frozen=True)
    encoder.train()
    assert encoder.backbone is not None and not encoder.backbone.training and encoder.head.training
    encoder(pixels(1)).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert all(parameter.grad is not None for parameter in encoder.head.parameters())


def test_clip_that_is_nowhere_says_what_to_set() -> None:
    with pytest.raises(AssetError, match=r"neither a local folder nor reachable .* set encoder\.repo"):
        ClipBackbone.from_pretrained("no-such-organisation/no-such-clip")


def test_a_picture_alone_is_seen_as_in_a_batch() -> None:
    torch.manual_seed(0)
    backbone = ResNetBackbone(stem_dim=8, widths=[8, 16], depths=[1, 1]).train()
    encoder = ImageEncoder(backbone, feature_dim=16, hidden_dim=8, embedding_dim=4, frozen=False)
    together = encoder(pixels(2))
    alone = torch.cat([encoder(one[None]) for one in pixels(2)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)  # no batch norm: ranks cannot differ


def test_pixels_must_be_bytes() -> None:
    encoder = ImageEncoder(ResNetBackbone(stem_dim=8, widths=[8], depths=[1]), feature_dim=8, frozen=False)
    with pytest.raises(TypeError, match="uint8"):
        encoder(torch.rand(1, 3, 32, 32))


def test_both_towers_give_unit_vectors() -> None:
    image = ImageEncoder(
        ResNetBackbone(stem_dim=8, widths=[8], depths=[1]), feature_dim=8, embedding_dim=6, frozen=False
    )
    model = GeoCLIP(image, LocationEncoder([1.0], frequencies=4, hidden_dim=8, depth=1, embedding_dim=6))
    image_BD, location_MD, scale, _ = model(pixels(3), torch.tensor([[10.0, 20.0], [0.0, 0.0]]))
    assert image_BD.shape == (4, 6) and location_MD.shape == (2, 6)
    assert torch.cat((image_BD, location_MD)).norm(dim=1).tolist() == pytest.approx([1.0] * 6)
    assert scale.item() == pytest.approx(1 / 0.07)
