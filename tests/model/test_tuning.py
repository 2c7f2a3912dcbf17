"""Which tensors of a backbone training changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.model.backbones import ClipBackbone, ResNetBackbone
from geoclip.model.image_encoder import add_lora, checkpoint_activations, tune_last_blocks, tuned_tensors

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def clip() -> ClipBackbone:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 12}
    config = CLIPVisionConfig(**shape, num_hidden_layers=3, image_size=16, patch_size=8)
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
    parts = (".layers.1.", ".layers.2.", "post_layernorm", "visual_projection")
    wanted = {name for name, _ in backbone.named_parameters() if any(part in name for part in parts)}
    assert all(any(part in name for name in wanted) for part in parts)
    assert trained(backbone) == wanted
    moved = set(step(backbone))
    assert moved <= wanted and all(any(part in name for name in moved) for part in parts)


def test_the_last_stages_of_a_resnet_are_trained() -> None:
    backbone = resnet()
    tune_last_blocks(backbone, 1)
    assert trained(backbone) == {name for name, _ in backbone.named_parameters() if ".stages.1." in name}


def test_lora_adds_alpha_over_rank_times_b_times_a() -> None:
    backbone = clip()
    add_lora(backbone, rank=2, alpha=3.0, dropout=0.5)
    projection = backbone.get_submodule("vision_model.vision_model.encoder.layers.0.self_attn.q_proj")
    weights = dict(projection.named_parameters())
    a, b = weights["lora_A.default.weight"], weights["lora_B.default.weight"]
    torch.nn.init.ones_(b)
    inputs = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    base = torch.nn.functional.linear(inputs, weights["base_layer.weight"], weights["base_layer.bias"])
    assert a.shape == (2, 16) and b.shape == (16, 2)
    expected = base + 3.0 / 2 * inputs @ a.T @ b.T
    torch.testing.assert_close(projection.eval()(inputs), expected)
    assert not torch.allclose(projection.train()(inputs), expected), "dropout is for training"


def test_checkpointed_activations_do_not_change_lora() -> None:
    plain, backbone = clip(), clip()
    for one in (plain, backbone):
        torch.manual_seed(3)
        add_lora(one, rank=2, alpha=4)
    checkpoint_activations(backbone)
    found, expected = step(backbone), step(plain)
    assert found.keys() == expected.keys() and len(found) == 3 * 4, "every B"
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def test_the_tuned_tensors_restore_a_backbone() -> None:
    tuned, fresh = clip(), clip()
    for one in (tuned, fresh):
        tune_last_blocks(one, 1)
    moved = set(step(tuned))
    names = tuned_tensors(tuned)
    assert moved <= names == trained(tuned)
    saved = {name: tensor for name, tensor in tuned.state_dict().items() if name in names}
    fresh.load_state_dict(saved, strict=False)
    torch.testing.assert_close(fresh(PIXELS), tuned(PIXELS), atol=0, rtol=0)
    assert tuned_tensors(add_lora(clip(), rank=2, alpha=4)) == trained(add_lora(clip(), rank=2, alpha=4))


def test_buffers_change_where_anything_is_trained() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    assert tuned_tensors(layers) == set()
    layers[0].bias.requires_grad_(True)
    assert tuned_tensors(layers) == {"0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_what_cannot_be_tuned_is_refused() -> None:
    for blocks in (-1, 0, 4):
        with pytest.raises(ValueError, match=rf" 3 blocks, .* {blocks} .* 1 to 3"):
            tune_last_blocks(clip(), blocks)
    for refused in (
        lambda: tune_last_blocks(resnet(), 3),
        lambda: add_lora(clip(), rank=0, alpha=4),
        lambda: add_lora(resnet(), rank=2, alpha=4),
        lambda: checkpoint_activations(resnet()),
        lambda: tune_last_blocks(nn.Linear(2, 2), 1),
    ):
        with pytest.raises(ValueError, match=r"ResNetBackbone|positive integer|Linear"):
            refused()
