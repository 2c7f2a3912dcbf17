"""Backbones: image models of `transformers`, from normalised pixels (B, 3, H, W) to features (B, F)."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoclip.errors import AssetError, GeoclipError, first_line
from geoclip.model.hub import is_cached, no_connection

CHANNEL_GROUPS = 8  # of a group norm, if they divide the number of channels
MODEL_TYPES = {  # by encoder.kind: model_type in config.json
    "clip": ("clip", "clip_vision_model"),
    "siglip": ("siglip", "siglip_vision_model"),
    "dino": ("dinov2", "dinov2_with_registers", "dinov3_vit"),
}


class PretrainedBackbone(nn.Module):
    """A vision model of `transformers` with pretrained weights, and its pooled features.

    Attributes:
        feature_dim: F.
        architecture: its class in `transformers`.
        kind: its encoder.kind.
    """

    architecture: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, vision_model: Any) -> None:
        super().__init__()
        self.vision_model: nn.Module = vision_model
        self.feature_dim: int = vision_model.config.hidden_size

    @classmethod
    def from_pretrained(cls, repo: str) -> Self:
        """Weights from the Hub id or local folder `repo`. Raises as `pretrained`."""
        return cls(pretrained(cls.architecture, repo, cls.kind))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, F)."""
        out: Tensor = self.vision_model(pixel_values=pixels_BCHW).pooler_output
        return out


class ClipBackbone(PretrainedBackbone):
    """CLIP's vision tower and its projection into the joint space (768 for ViT-L/14); also OpenCLIP and StreetCLIP."""

    architecture, kind = "CLIPVisionModelWithProjection", "clip"

    def __init__(self, vision_model: Any) -> None:
        super().__init__(vision_model)
        self.feature_dim = vision_model.config.projection_dim
        self.image_px: int = vision_model.config.image_size

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, image_px, image_px) normalised pixels -> (B, F) projected features."""
        out: Tensor = self.vision_model(pixel_values=pixels_BCHW).image_embeds
        return out


class SiglipBackbone(PretrainedBackbone):
    """The vision tower of SigLIP, or of SigLIP 2 at a fixed resolution, with its attention pooling."""

    architecture, kind = "SiglipVisionModel", "siglip"

    def __init__(self, vision_model: Any) -> None:
        super().__init__(vision_model)
        self.image_px: int = vision_model.config.image_size


class DinoBackbone(PretrainedBackbone):
    """DINOv2 or DINOv3: the class token after the last norm; H and W are multiples of the patch size."""

    architecture, kind = "AutoModel", "dino"

    def __init__(self, vision_model: Any) -> None:
        super().__init__(vision_model)
        self.patch_px: int = vision_model.config.patch_size
        # DINOv3 augments its positions at random in training. Each rank, and each part of a batch, would draw another
        # augmentation, and learn something other than one rank with the full batch.
        for name in ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"):
            if hasattr(vision_model.config, name):
                setattr(vision_model.config, name, None)


class ResNetBackbone(nn.Module):
    """A small ResNet of `transformers` with random weights, for images of tens of pixels.

    Group norms replace its batch norms: a picture's features depend on no other picture, so that two ranks with batch
    B learn exactly what one rank learns with 2B.

    Source: Wu, He, "Group Normalization", ECCV 2018.
    """

    def __init__(self, *, stem_dim: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.resnet = ResNetModel(
            ResNetConfig(embedding_size=stem_dim, hidden_sizes=list(widths), depths=list(depths), layer_type="basic")
        )
        for parent in list(self.resnet.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    channels = child.num_features
                    setattr(parent, name, nn.GroupNorm(math.gcd(channels, CHANNEL_GROUPS), channels))
        # Faster convolutions on CPU and GPU. Called on the class because transformers' `to` is untyped.
        nn.Module.to(self.resnet, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, widths[-1]) pooled features."""
        out: Tensor = self.resnet(pixels_BCHW.contiguous(memory_format=torch.channels_last)).pooler_output
        return out.flatten(1)


class ViTBackbone(nn.Module):
    """A small vision transformer of `transformers` with random weights, for images of tens of pixels.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
    """

    def __init__(self, *, image_px: int, patch_px: int, blocks: int, heads: int, feature_dim: int) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel

        self.vit = ViTModel(
            ViTConfig(
                image_size=image_px,
                patch_size=patch_px,
                num_hidden_layers=blocks,
                num_attention_heads=heads,
                hidden_size=feature_dim,
                intermediate_size=4 * feature_dim,
            ),
            add_pooling_layer=False,
        )

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, image_px, image_px) normalised pixels -> (B, feature_dim) class tokens after the last norm."""
        out: Tensor = self.vit(pixel_values=pixels_BCHW).last_hidden_state
        return out[:, 0]


def weights_sha256(backbone: nn.Module) -> str:
    """Hash of a backbone's weights, the same for every file format and device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pretrained(architecture: str, repo: str, kind: str) -> nn.Module:
    """A model of `transformers` with its pretrained weights, in float32 and in evaluation mode.

    `architecture` is its class there; `repo` a Hub id, or a local folder with config.json and model.safetensors.

    Raises:
        AssetError: neither a local folder nor reachable, or unreadable.
        GeoclipError: of another architecture, or without some of its weights.
    """
    unreachable = "" if os.path.isdir(repo) else no_connection()
    if unreachable and not is_cached(repo, "config.json"):  # before transformers is imported, which takes seconds
        raise AssetError(_unreachable_text(repo, kind, unreachable))
    local = {"local_files_only": True} if unreachable else {}
    import transformers
    from transformers import CONFIG_MAPPING, PretrainedConfig, __version__

    try:
        config = PretrainedConfig.get_config_dict(repo, **local)[0]
    except (OSError, ValueError) as error:
        raise AssetError(_unreachable_text(repo, kind, unreachable or first_line(error))) from error
    found = config.get("model_type")
    if found not in MODEL_TYPES[kind]:
        raise GeoclipError(_another_kind_text(repo, kind, found))
    if found not in CONFIG_MAPPING:
        raise GeoclipError(
            f"encoder.repo={repo} has model_type={found!r}, which transformers {__version__} does not know "
            "yet: pip install --upgrade transformers"
        )
    # CLIP's joint width is at the top of its config; the vision tower's own copy of it is often a default.
    joint = {"projection_dim": config["projection_dim"]} if found == "clip" and "projection_dim" in config else {}
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):  # transformers 4 draws weights before it reads them
            model, report = getattr(transformers, architecture).from_pretrained(
                repo, output_loading_info=True, **joint, **local
            )
    except (OSError, ValueError) as error:
        raise AssetError(_unreachable_text(repo, kind, unreachable or first_line(error))) from error
    except (RuntimeError, SafetensorError) as error:  # from torch and safetensors, of a corrupt file
        raise AssetError(f"the weights in {repo!r} cannot be read ({first_line(error)}); fetch them again") from error
    # transformers gives missing weights random values. A mask token is only for pretraining.
    if missing := sorted(name for name in report["missing_keys"] if not name.endswith("mask_token")):
        raise GeoclipError(
            f"{repo!r} lacks {len(missing)} weights of a {type(model).__name__}, first {missing[0]}; set encoder.repo "
            "to a checkpoint that has them"
        )
    pretrained: nn.Module = model.float().eval()
    return pretrained


def _unreachable_text(repo: str, kind: str, reason: str) -> str:
    return (
        f"the {kind} weights {repo!r} are neither a local folder nor reachable on the Hub ({reason}); set "
        "encoder.repo (training) or backbone (checkpoint=official) to a folder with config.json and model.safetensors"
    )


def _another_kind_text(repo: str, kind: str, found: str | None) -> str:
    known = next((name for name, types in MODEL_TYPES.items() if found in types), None)
    fix = f"set encoder.kind={known}, or " if known else ""
    fixed = " of a fixed resolution, such as google/siglip2-base-patch16-224," if found == "siglip2" else ""
    return (
        f"encoder.repo={repo} has model_type={found!r}, but encoder.kind={kind} needs "
        f"{' or '.join(MODEL_TYPES[kind])}: {fix}set encoder.repo to a checkpoint{fixed} of that type"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers: it logs every weight that is not used. Missing weights are checked by `pretrained`."""
    from transformers.utils import logging as transformers_logging

    before, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bar:
            transformers_logging.enable_progress_bar()
