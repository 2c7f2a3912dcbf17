"""The image encoder: a backbone and a small MLP; training of parts of the backbone (last blocks, LoRA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """uint8 pixels -> normalisation -> backbone -> Linear, ReLU, Linear.

    Args:
        backbone: (B, 3, H, W) normalised pixels -> (B, F); None: precomputed features go through `head`.
        mean, std: per channel, of pixels scaled to [0, 1]; CLIP's by default.
        frozen: the backbone is not trained and stays in evaluation mode.
    """

    mean_13HW: Tensor
    std_13HW: Tensor

    def __init__(
        self,
        backbone: nn.Module | None,
        *,
        feature_dim: int = 768,
        hidden_dim: int = 768,
        embedding_dim: int = 512,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim
        self.frozen = frozen
        self.head = nn.Sequential(
            nn.Linear(feature_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, embedding_dim)
        )
        self.register_buffer("mean_13HW", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("std_13HW", torch.empty(1, 3, 1, 1), persistent=False)
        self.normalise_by(mean, std)
        if frozen and backbone is not None:
            backbone.requires_grad_(False)
            backbone.eval()

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Replace mean and std."""
        for buffer, values in ((self.mean_13HW, mean), (self.std_13HW, std)):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> ImageEncoder:
        """Training mode for the MLP, and for the backbone unless it is frozen."""
        super().train(mode)
        if self.frozen and self.backbone is not None:
            self.backbone.eval()
        return self

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 pixels -> (B, F) features, without gradient if the backbone is frozen.

        Precomputed features, (B, F), are returned in float32.
        """
        if pixels_BCHW.ndim == 2:
            return pixels_BCHW.float()
        if self.backbone is None:
            raise RuntimeError("this image encoder has no backbone: pass features to `head`, or load a backbone")
        if pixels_BCHW.dtype != torch.uint8:
            raise TypeError(f"pixels must be uint8 in [0, 255], got {pixels_BCHW.dtype}")
        normalised = (pixels_BCHW.float() / 255 - self.mean_13HW) / self.std_13HW
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out: Tensor = self.backbone(normalised)
        return out

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 pixels -> (B, D) embeddings, not normalised."""
        out: Tensor = self.head(self.features(pixels_BCHW))
        return out


# Names of modules in transformers 4 and 5.
BLOCKS = ("layers", "layer", "stages")
AFTER_BLOCKS = ("post_layernorm", "layernorm", "norm", "visual_projection", "head")
ATTENTION = ("self_attn", "attention")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "query", "key", "value", "dense")


def tune_last_blocks(backbone: nn.Module, blocks: int) -> None:
    """Train only the last blocks (stages of a ResNet) and the layers after them.

    Raises:
        ValueError: fewer than one, more than it has, or it has no known blocks.
    """
    prefix, found = _blocks(backbone)
    if not 1 <= blocks <= len(found):
        raise ValueError(
            f"{type(backbone).__name__} has {len(found)} blocks, of which {blocks} cannot be trained: "
            f"give 1 to {len(found)}"
        )
    backbone.requires_grad_(False)
    for block in list(found)[-blocks:]:
        block.requires_grad_(True)
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] in AFTER_BLOCKS and not name.startswith(f"{prefix}."):
            module.requires_grad_(True)


def add_lora(backbone: nn.Module, *, rank: int, alpha: float, dropout: float = 0.0) -> nn.Module:
    """Train only low-rank additions, alpha / rank · B A, to the projections of the blocks' attention.

    B starts at zero, so that the backbone's outputs do not change at first; A is drawn from torch's global generator.
    A projection's own tensors are renamed, as `q_proj.base_layer.weight`: load pretrained weights before.

    The backbone is changed in place and returned. Dropout is on the inputs of the additions.

    Raises:
        ValueError: it has no attention of a known name, or rank is below one.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, by the library `peft`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    prefix, blocks = _blocks(backbone)
    found = [
        f"{prefix}.{name}"
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear)
        and name.rpartition(".")[2] in PROJECTIONS
        and not set(ATTENTION).isdisjoint(name.split("."))
    ]
    if not found:
        raise ValueError(
            f"{type(backbone).__name__} has no attention; LoRA is for transformers such as CLIP's (ClipBackbone)"
        )
    backbone.requires_grad_(False)
    # peft types alpha as int, but accepts a float.
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=found)  # type: ignore[arg-type]
    inject_adapter_in_model(config, backbone)
    return backbone


def checkpoint_activations(backbone: nn.Module) -> None:
    """Discard a block's activations after the forward pass and compute them again in the backward pass.

    Raises:
        ValueError: the backbone does not support it.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
    """
    for module in backbone.modules():
        if getattr(module, "supports_gradient_checkpointing", False):
            newer = hasattr(module, "activation_checkpointing_enable")  # transformers 5
            name = "activation_checkpointing_enable" if newer else "gradient_checkpointing_enable"
            getattr(module, name)({"use_reentrant": False})
            return
    raise ValueError(f"{type(backbone).__name__} does not support activation checkpointing; train it without")


def tuned_tensors(backbone: nn.Module) -> set[str]:
    """Names in the state dict that training changes: trained parameters and, if there are any, all buffers."""
    parameters = dict(backbone.named_parameters(remove_duplicate=False))
    trained = {name for name, one in parameters.items() if one.requires_grad}
    if not trained:
        return set()
    return {name for name in backbone.state_dict() if name in trained or name not in parameters}


def _blocks(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of blocks and its name."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in BLOCKS and len(module):
            return name, module
    raise ValueError(f"{type(backbone).__name__} has no list of blocks")
