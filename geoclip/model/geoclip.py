"""GeoCLIP: photographs and coordinates in one embedding space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.model.image_encoder import ImageEncoder


class Embedded(NamedTuple):
    """The arguments of the loss."""

    image_BD: Tensor  # unit vectors
    location_MD: Tensor  # unit vectors
    scale: Tensor  # exp of the logit scale
    bias: Tensor | None = None  # added to every logit by the sigmoid loss


class GeoCLIP(nn.Module):
    """An image encoder, a location encoder, and the logit scale that sharpens their cosine similarity.

    Args:
        image_encoder: (B, 3, H, W) uint8 pixels -> (B, D).
        location_encoder: (M, 2) degrees -> (M, D).
        temperature: the logit scale starts at ln(1 / temperature).
        learn_temperature: False: it stays there.
        bias: start of the bias that the sigmoid loss adds to every logit; None: there is no bias.

    Source: GeoCLIP: Clip-Inspired Alignment between Locations and Images, NeurIPS 2023, arXiv 2309.16020.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        location_encoder: nn.Module,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.location_encoder = location_encoder
        start = torch.tensor(math.log(1 / temperature))
        self.logit_scale = nn.Parameter(start, requires_grad=learn_temperature)
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 pixels -> (B, D) unit vectors, float32."""
        return F.normalize(self.image_encoder(pixels_BCHW).float(), dim=1)

    def encode_features(self, features_BF: Tensor) -> Tensor:
        """(B, F) precomputed features of the backbone -> (B, D) unit vectors, float32."""
        return F.normalize(self.image_encoder.head(features_BF).float(), dim=1)

    def encode_location(self, gps_deg_M2: Tensor) -> Tensor:
        """(M, 2) latitude, longitude in degrees -> (M, D) unit vectors, float32."""
        return F.normalize(self.location_encoder(gps_deg_M2).float(), dim=1)

    def logit_terms(self) -> tuple[Tensor, Tensor | None]:
        """exp(logit scale), and the bias of the logits, if there is one."""
        return self.logit_scale.exp(), self.logit_bias

    def forward(self, pixels_BCHW: Tensor, gps_deg_M2: Tensor) -> Embedded:
        """Both towers in one call, because DDP only synchronises gradients of `forward`."""
        return Embedded(self.encode_image(pixels_BCHW), self.encode_location(gps_deg_M2), *self.logit_terms())
