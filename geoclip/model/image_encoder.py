"""Image encoders: a backbone of `transformers`, then GeoCLIP's two-layer MLP."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoclip.errors import AssetError

CHANNEL_GROUPS = 8  # of a group norm, where the number of channels allows


class ClipBackbone(nn.Module):
    """CLIP's vision tower with its projection into the joint space (768 for ViT-L/14)."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model

    @classmethod
    def from_pretrained(cls, repo: str) -> ClipBackbone:
        """Weights from the Hub id or local folder `repo`.

        Raises:
            AssetError: neither a local folder nor reachable; the message says what to set.
        """
        from transformers import CLIPVisionModelWithProjection

        try:
            return cls(CLIPVisionModelWithProjection.from_pretrained(repo))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise AssetError(
                f"CLIP's weights {repo!r} are neither a local folder nor reachable on the Hub ({reason}); "
                "set encoder.repo (training) or backbone (checkpoint=official) to a folder with config.json and "
                "model.safetensors"
            ) from error

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, F) projected features."""
        out: Tensor = self.vision_model(pixel_values=pixels_BCHW).image_embeds
        return out


class ResNetBackbone(nn.Module):
    """A small ResNet of `transformers` with random weights, for images of tens of pixels.

    Its batch norms are replaced by group norms: a picture's features then depend on no other picture, so that
    two ranks with batch B learn exactly what one rank learns with 2B.
    Source: Wu, He, "Group Normalization", ECCV 2018.
    """

    def __init__(self, *, stem_dim: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.resnet = ResNetModel(
            ResNetConfig(
                embedding_size=stem_dim, hidden_sizes=list(widths), depths=list(depths), layer_type="basic"
            )
        )
        for parent in list(self.resnet.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    channels = child.num_features
                    setattr(parent, name, nn.GroupNorm(math.gcd(channels, CHANNEL_GROUPS), channels))
        # What the convolutions of CPUs and GPUs want; called on the class because transformers' `to` is untyped.
        nn.Module.to(self.resnet, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, widths[-1]) pooled features."""
        out: Tensor = self.resnet(pixels_BCHW.contiguous(memory_format=torch.channels_last)).pooler_output
        return out.flatten(1)


def weights_sha256(backbone: nn.Module) -> str:
    """Hash of a backbone's weights: the same wherever they came from and whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ImageEncoder(nn.Module):
    """uint8 pixels -> normalisation -> backbone -> Linear, ReLU, Linear.

    Args:
        backbone: (B, 3, H, W) normalised pixels -> (B, F); None for precomputed features, `head` alone.
        feature_dim: F.
        hidden_dim: width of the MLP.
        embedding_dim: D.
        mean, std: per channel, of pixels scaled to [0, 1]; CLIP's by default.
        frozen: the backbone is neither trained nor ever put into training mode.
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
        """From now on normalise pixels by these, per channel, of pixels scaled to [0, 1]."""
        for buffer, values in ((self.mean_13HW, mean), (self.std_13HW, std)):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> ImageEncoder:
        """Training mode for the MLP, and for the backbone unless it is frozen."""
        super().train(mode)
        if self.frozen and self.backbone is not None:
            self.backbone.eval()
        return self

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 pixels -> (B, F) the backbone's features, without gradient where it is frozen.

        What has two axes are features already, computed before.
        """
        if pixels_BCHW.ndim == 2:
            return pixels_BCHW.float()
        if self.backbone is None:
            raise RuntimeError(
                "this image encoder has no backbone: give it features through `head`, or load CLIP"
            )
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
