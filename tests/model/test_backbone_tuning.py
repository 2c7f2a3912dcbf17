"""Every transformer can be tuned by its last blocks and by LoRA, and can forget its activations."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geoclip.config import EncoderConfig
from geoclip.factory.model import build_image_encoder
from geoclip.model.image_encoder import ImageEncoder

OPTIONS = ("clip_vit_l14", "siglip2_b16", "dinov2_b14", "dinov3_b16", "vit_tiny")
PIXELS = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)

Build = Callable[..., ImageEncoder]


@pytest.fixture
def build(small_encoder: Callable[..., EncoderConfig]) -> Build:
    """`build("dinov2_b14", "tune=lora")`: the encoder in training mode, the same again for the same words."""

    def built(option: str, *overrides: str) -> ImageEncoder:
        torch.manual_seed(0)
        config = small_encoder(option, *(f"encoder.{override}" for override in overrides))
        return build_image_encoder(config, 4).train()

    return built


def backbone_of(encoder: ImageEncoder) -> nn.Module:
    assert encoder.backbone is not None
    return encoder.backbone


def trained(encoder: ImageEncoder) -> set[str]:
    return {name for name, one in backbone_of(encoder).named_parameters() if one.requires_grad}


def step(encoder: ImageEncoder) -> dict[str, Tensor]:
    """What one step of descent moves of the backbone, by name."""
    backbone = backbone_of(encoder)
    before = {name: one.detach().clone() for name, one in backbone.named_parameters()}
    optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad], lr=1.0)
    encoder.features(PIXELS).square().sum().backward()
    optimizer.step()
    return {name: one for name, one in backbone.named_parameters() if not torch.equal(one, before[name])}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_last_block_and_all_that_follows_it_are_trained(option: str, build: Build) -> None:
    encoder = build(option, "tune=last_blocks", "last_blocks=1")
    names = {name for name, _ in backbone_of(encoder).named_parameters()}
    before = {name for name in names if re.search(r"embeddings|pre_layrnorm|layers?\.0\.", name)}
    assert trained(encoder) == names - before and before
    block = {name for name in names if re.search(r"layers?\.1\.", name)}
    assert 0 < len(block) < len(names - before), "the norm and the projection after it, too"
    moved = set(step(encoder))
    assert moved <= names - before and moved & block and moved - block


@pytest.mark.parametrize("option", OPTIONS)
def test_lora_is_added_to_the_four_projections_of_every_block(option: str, build: Build) -> None:
    plain, encoder = build(option, "tune=full"), build(option, "tune=lora", "lora_rank=2", "lora_alpha=4")
    torch.testing.assert_close(encoder.features(PIXELS), plain.features(PIXELS))  # B = 0 adds nothing
    names = trained(encoder)
    assert len(names) == 2 * 4 * 2, "blocks, projections, A and B"
    assert all("lora_" in name and re.search(r"layers?\.[01]\..*att", name) for name in names)
    moved = step(encoder)
    assert len(moved) == 2 * 4 and all("lora_B" in name for name in moved), "with B = 0, A has no gradient"
    assert not torch.allclose(encoder.features(PIXELS), plain.features(PIXELS))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", [("tune=full",), ("tune=lora", "lora_rank=2")], ids=lambda way: way[0])
def test_forgotten_activations_change_no_gradient(option: str, way: tuple[str, ...], build: Build) -> None:
    plain, encoder = build(option, *way), build(option, *way, "checkpoint_activations=true")
    norm = next(
        module
        for name, module in backbone_of(encoder).named_modules()
        if isinstance(module, nn.LayerNorm) and re.search(r"layers?\.1\.", name)
    )
    calls: list[int] = []
    norm.register_forward_hook(lambda *_: calls.append(1))
    for one in (plain, encoder):
        one.features(PIXELS).square().sum().backward()
    assert len(calls) == 2, "once forwards, once again on the way back"
    gradients = [
        {name: one.grad for name, one in backbone_of(each).named_parameters() if one.grad is not None}
        for each in (plain, encoder)
    ]
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)
