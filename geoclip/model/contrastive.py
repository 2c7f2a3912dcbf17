"""GeoCLIP's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def same_place(gps_deg_B2: Tensor, candidates_deg_M2: Tensor) -> Tensor:
    """(B, M) whether candidate j has the very coordinates of row i."""
    return (gps_deg_B2[:, None, :] == candidates_deg_M2[None, :, :]).all(dim=-1)


def image_to_gps_loss(
    image_BD: Tensor,
    location_MD: Tensor,
    scale: Tensor,
    first: int,
    same_place_BM: Tensor | None = None,
    weight_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding each image's place among M candidates; one direction, image to GPS.

    Args:
        image_BD: (B, D) unit vectors of this rank's images.
        location_MD: (M, D) unit vectors: every rank's coordinates, then the queue's.
        scale: exp(logit scale).
        first: column of this rank's first image; image i belongs to column first + i.
        same_place_BM: (B, M) candidates at the very place of the image. They are left out of the sum, so
            that a place that was photographed twice is never its own negative.
        weight_B: (B,) of each image in both sums; 1 / B where None. An image that could not be read weighs 0.

    Returns:
        The loss in nats, and the share of images whose own place scored highest (detached).

    Source: GeoCLIP, NeurIPS 2023, eq. 3, with one view per image as in the released code.
    """
    logits_BM = (scale * image_BD @ location_MD.T).float()
    target_B = torch.arange(first, first + image_BD.shape[0], device=image_BD.device)
    if same_place_BM is not None:
        own_BM = torch.zeros_like(same_place_BM).scatter_(1, target_B[:, None], True)
        logits_BM = logits_BM.masked_fill(same_place_BM & ~own_BM, float("-inf"))
    nats_B = F.cross_entropy(logits_BM, target_B, reduction="none")
    with torch.no_grad():
        found_B = (logits_BM.argmax(dim=1) == target_B).float()
    if weight_B is None:
        return nats_B.mean(), found_B.mean()
    return nats_B @ weight_B, found_B @ weight_B
