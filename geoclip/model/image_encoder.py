"""Image encoders: a backbone of `transformers`, then GeoCLIP's two-layer MLP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
            raise RuntimeError("this image encoder has no backbone: give it features through `head`, or load CLIP")
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
