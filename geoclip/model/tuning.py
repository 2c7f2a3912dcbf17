"""How much of a backbone is trained: its last blocks, or low-rank additions to its attention; and at what memory."""

from __future__ import annotations

from torch import nn

# Names that transformers gives to what is looked for here, in its versions 4 and 5.
BLOCKS = ("layers", "layer", "stages")
AFTER_BLOCKS = ("post_layernorm", "layernorm", "norm", "visual_projection", "head")
ATTENTION = ("self_attn", "attention")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "query", "key", "value", "dense")


def tune_last_blocks(backbone: nn.Module, blocks: int) -> None:
    """Train the last blocks and what comes after them; the rest stays as it is.

    Args:
        backbone: a transformer, or a ResNet, whose blocks are its stages.
        blocks: how many.

    Raises:
        ValueError: fewer than one, more than it has, or it has none that are known.
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
    """Train low-rank additions to the projections of its blocks' attention, alpha / rank · B A, and nothing else.

    B starts at zero, so that at first the backbone's outputs do not change. A is drawn from torch's global generator.
    A projection's own tensors are named `q_proj.base_layer.weight` from then on: load pretrained weights before.

    Args:
        backbone: a transformer; changed in place.
        rank: of the additions.
        alpha: their scale, times the rank.
        dropout: on what goes into them.

    Returns:
        The same backbone.

    Raises:
        ValueError: it has no blocks with attention of a known name, or rank is below one.

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
    # peft calls alpha an int, and only ever divides it.
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=found,
    )
    inject_adapter_in_model(config, backbone)
    return backbone


def checkpoint_activations(backbone: nn.Module) -> None:
    """Forget a block's activations after the forward pass and compute them again in the backward pass.

    Raises:
        ValueError: the backbone does not know how.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
    """
    for module in backbone.modules():
        if getattr(module, "supports_gradient_checkpointing", False):
            newer = hasattr(module, "activation_checkpointing_enable")  # transformers 5's name for it
            name = "activation_checkpointing_enable" if newer else "gradient_checkpointing_enable"
            getattr(module, name)({"use_reentrant": False})
            return
    raise ValueError(f"{type(backbone).__name__} cannot forget its activations; train it without")


def tuned_tensors(backbone: nn.Module) -> set[str]:
    """Names in the state dict of what training changes; the source of the pretrained weights brings back the rest.

    They are the parameters that are trained and, where there are any, all buffers.
    """
    parameters = dict(backbone.named_parameters(remove_duplicate=False))
    trained = {name for name, one in parameters.items() if one.requires_grad}
    if not trained:
        return set()
    return {name for name in backbone.state_dict() if name in trained or name not in parameters}


def _blocks(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of blocks and its name, by what transformers calls it."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in BLOCKS and len(module):
            return name, module
    raise ValueError(f"{type(backbone).__name__} has no list of blocks")
