"""The image encoder around its backbone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from geoclip import GeoCLIP, ImageEncoder, LocationEncoder
from geoclip.model.backbones import ResNetBackbone


def pixels(seed: int, size_px: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 3, size_px, size_px), generator=generator, dtype=torch.uint8)


def encoder_of(*, frozen: bool, widths: Sequence[int] = (8,)) -> ImageEncoder:
    torch.manual_seed(0)
    backbone = ResNetBackbone(stem_dim=8, widths=widths, depths=[1] * len(widths))
    return ImageEncoder(backbone, feature_dim=widths[-1], hidden_dim=8, embedding_dim=6, frozen=frozen).train()


def test_a_frozen_backbone_never_moves() -> None:
    encoder = encoder_of(frozen=True)
    assert encoder.backbone is not None and not encoder.backbone.training and encoder.head.training
    encoder(pixels(1)).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert all(parameter.grad is not None for parameter in encoder.head.parameters())


def test_features_of_a_picture_do_not_depend_on_its_batch() -> None:
    encoder = encoder_of(frozen=False, widths=(8, 16))
    alone = torch.cat([encoder(one[None]) for one in pixels(2)])
    torch.testing.assert_close(encoder(pixels(2)), alone, atol=1e-5, rtol=1e-4)


def test_pixels_must_be_bytes() -> None:
    with pytest.raises(TypeError, match="uint8"):
        encoder_of(frozen=False)(torch.rand(1, 3, 32, 32))


def test_both_towers_give_unit_vectors() -> None:
    location = LocationEncoder([1.0], frequencies=4, hidden_dim=8, depth=1, embedding_dim=6)
    model = GeoCLIP(encoder_of(frozen=False), location)
    image_BD, location_MD, scale, _ = model(pixels(3), torch.tensor([[10.0, 20.0], [0.0, 0.0]]))
    assert image_BD.shape == (4, 6) and location_MD.shape == (2, 6)
    assert torch.cat((image_BD, location_MD)).norm(dim=1).tolist() == pytest.approx([1.0] * 6)
    assert scale.item() == pytest.approx(1 / 0.07)
