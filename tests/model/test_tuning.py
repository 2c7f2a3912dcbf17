"""What is tuned of a backbone moves, the rest does not; saving memory changes no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.model.backbones import ClipBackbone, ResNetBackbone
from geoclip.model.image_encoder import add_lora, checkpoint_activations, tune_last_blocks, tuned_tensors

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
    parts = (".layers.1.", ".layers.2.", "post_layernorm", "visual_projection")
    wanted = {name for name, _ in backbone.named_parameters() if any(part in name for part in parts)}
    assert all(any(part in name for name in wanted) for part in parts)
    assert trained(backbone) == wanted
    moved = set(step(backbone))
    assert moved <= wanted and all(any(part in name for name in moved) for part in parts)


def test_of_a_resnet_the_last_stages_are() -> None:
    backbone = resnet()
    tune_last_blocks(backbone, 1)
    assert trained(backbone) == {name for name, _ in backbone.named_parameters() if ".stages.1." in name}


def test_lora_says_at_first_what_was_said_before_and_moves_alone() -> None:
    plain, backbone = clip(), clip()
    assert add_lora(backbone, rank=2, alpha=4) is backbone
    torch.testing.assert_close(backbone(PIXELS), plain(PIXELS), atol=0, rtol=0)
    assert len(trained(backbone)) == 3 * 4 * 2, "layers, projections, A and B"
    assert all("lora_" in name for name in trained(backbone))
    moved = step(backbone)
    assert moved and all("lora_B" in name for name in moved), "with B = 0, A has no gradient yet"
    assert not torch.allclose(backbone(PIXELS), plain(PIXELS))
    for name, tensor in plain.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        now = backbone.state_dict()
        assert torch.equal(now.get(name, now.get(f"{stem}.base_layer.{leaf}", torch.empty(0))), tensor), name


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
    whole = base + 3.0 / 2 * inputs @ a.T @ b.T
    torch.testing.assert_close(projection.eval()(inputs), whole)
    assert not torch.allclose(projection.train()(inputs), whole), "dropout is for training"


def test_forgotten_activations_change_no_gradient() -> None:
    plain, backbone = clip(), clip()
    checkpoint_activations(backbone)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    backbone.vision_model.get_submodule("vision_model.encoder.layers.1.layer_norm1").register_forward_hook(count)
    for one in (plain, backbone):
        one(PIXELS).square().sum().backward()
    for mine, theirs in zip(backbone.parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert mine.grad is None
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-5)
    assert calls == 2, "once forwards, once again on the way back"


def test_forgotten_activations_train_lora_as_remembered_ones_do() -> None:
    plain, backbone = clip(), clip()
    for one in (plain, backbone):
        torch.manual_seed(3)
        add_lora(one, rank=2, alpha=4)
    checkpoint_activations(backbone)
    mine, theirs = step(backbone), step(plain)
    assert mine.keys() == theirs.keys() and len(mine) == 3 * 4, "every B"
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-5)


def test_what_is_tuned_is_what_brings_a_backbone_back() -> None:
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


def test_what_cannot_be_tuned_is_said() -> None:
    for blocks in (-1, 0, 4):
        with pytest.raises(ValueError, match=f"has 3 blocks, of which {blocks} cannot be trained: give 1 to 3"):
            tune_last_blocks(clip(), blocks)
    with pytest.raises(ValueError, match="ResNetBackbone has 2 blocks, of which 3"):
        tune_last_blocks(resnet(), 3)
    with pytest.raises(ValueError, match="positive integer"):
        add_lora(clip(), rank=0, alpha=4)
    with pytest.raises(ValueError, match=r"ResNetBackbone has no attention.*\(ClipBackbone\)"):
        add_lora(resnet(), rank=2, alpha=4)
    with pytest.raises(ValueError, match="ResNetBackbone cannot forget"):
        checkpoint_activations(resnet())
    with pytest.raises(ValueError, match="Linear has no list of blocks"):
        tune_last_blocks(nn.Linear(2, 2), 1)
