"""What is tuned of a backbone moves, the rest does not; saving memory changes no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.model.image_encoder import ClipBackbone, ResNetBackbone
from geoclip.model.tuning import add_lora, checkpoint_activations, tune_last_blocks

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def clip() -> ClipBackbone:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    )
    return ClipBackbone(CLIPVisionModelWithProjection(config)).train()


def resnet() -> ResNetBackbone:
    return ResNetBackbone(stem_dim=8, widths=[8, 16], depths=[1, 1])


def trained(backbone: nn.Module) -> set[str]:
    return {name for name, one in backbone.named_parameters() if one.requires_grad}


def step(backbone: nn.Module) -> dict[str, Tensor]:
    """What one step of descent moves, by name."""
    before = {name: one.detach().clone() for name, one in backbone.named_parameters()}
    optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad], lr=1.0)
    backbone(PIXELS).square().sum().backward()
    optimizer.step()
    return {name: one for name, one in backbone.named_parameters() if not torch.equal(one, before[name])}


def test_the_last_blocks_and_what_follows_them_are_trained() -> None:
    backbone = clip()
    tune_last_blocks(backbone, 2)
    names = trained(backbone)
    assert any(".layers.1." in name for name in names) and any(".layers.2." in name for name in names)
    assert any("post_layernorm" in name for name in names) and any(
        "visual_projection" in name for name in names
    )
    assert not any(".layers.0." in name or "embeddings" in name for name in names)
    moved = set(step(backbone))
    assert moved <= names and any("visual_projection" in name for name in moved)


def test_of_a_resnet_the_last_stages_are() -> None:
    backbone = resnet()
    tune_last_blocks(backbone, 1)
    assert trained(backbone) == {name for name, _ in backbone.named_parameters() if ".stages.1." in name}


def test_lora_says_at_first_what_was_said_before_and_moves_alone() -> None:
    plain, backbone = clip(), clip()
    add_lora(backbone, rank=2, alpha=4)
    torch.testing.assert_close(backbone(PIXELS), plain(PIXELS), atol=0, rtol=0)
    assert trained(backbone) and all("lora_" in name for name in trained(backbone))
    moved = step(backbone)
    assert moved and all("lora_B" in name for name in moved), "with B = 0, A has no gradient yet"
    assert not torch.allclose(backbone(PIXELS), plain(PIXELS))


def test_forgotten_activations_change_no_gradient() -> None:
    plain, backbone = clip(), clip()
    checkpoint_activations(backbone)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    backbone.vision_model.get_submodule("vision_model.encoder.layers.1.layer_norm1").register_forward_hook(
        count
    )
    for one in (plain, backbone):
        one(PIXELS).square().sum().backward()
    for mine, theirs in zip(backbone.parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert mine.grad is None
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-5)
    assert calls == 2, "once forwards, once again on the way back"


def test_what_cannot_be_tuned_is_said() -> None:
    with pytest.raises(ValueError, match="has 3 blocks, of which 4 cannot be trained"):
        tune_last_blocks(clip(), 4)
    with pytest.raises(ValueError, match="ResNetBackbone has no attention"):
        add_lora(resnet(), rank=2, alpha=4)
    with pytest.raises(ValueError, match="ResNetBackbone cannot forget"):
        checkpoint_activations(resnet())
    with pytest.raises(ValueError, match="Linear has no list of blocks"):
        tune_last_blocks(nn.Linear(2, 2), 1)
