"""GeoCLIP's loss and its relatives: pure functions of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def same_place(gps_deg_B2: Tensor, candidates_deg_M2: Tensor) -> Tensor:
    """(B, M) whether candidate j has the very coordinates of row i."""
    (lat_B, lon_B), (lat_M, lon_M) = gps_deg_B2.unbind(dim=1), candidates_deg_M2.unbind(dim=1)
    return (lat_B[:, None] == lat_M) & (lon_B[:, None] == lon_M)


def cross_entropy(
    logits_NM: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    ignored_NM: Tensor | None = None,
    soft_NM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding each row's target among M candidates.

    Args:
        logits_NM: of N images among M places, or of N places among M images.
        target_N: column of each row's own candidate.
        weight_N: of each row in both sums. An image that could not be read weighs 0.
        ignored_NM: candidates that are left out of the sum, such as a place that was photographed twice; a row's own
            is never left out.
        soft_NM: how nearly right each candidate is, in [0, 1]: the target's distribution once it is normalised. None
            puts everything on the target.

    Returns:
        The loss in nats, and the share of rows whose own candidate scored highest (detached).

    Source: GeoCLIP, NeurIPS 2023, eq. 3, for images among places with one view per image, as in the released code.
    """
    own_NM = torch.zeros_like(logits_NM, dtype=torch.bool).scatter_(1, target_N[:, None], True)
    if ignored_NM is not None:
        ignored_NM = ignored_NM & ~own_NM
        logits_NM = logits_NM.masked_fill(ignored_NM, float("-inf"))
    if soft_NM is None:
        nats_N = F.cross_entropy(logits_NM, target_N, reduction="none")
    else:
        share_NM = soft_NM.masked_fill(own_NM, 1.0)
        log_NM = logits_NM.log_softmax(dim=1)
        if ignored_NM is not None:
            share_NM, log_NM = share_NM.masked_fill(ignored_NM, 0.0), log_NM.masked_fill(ignored_NM, 0.0)
        nats_N = -(share_NM / share_NM.sum(dim=1, keepdim=True) * log_NM).sum(dim=1)
    return nats_N @ weight_N, _found(logits_NM, target_N) @ weight_N


def sigmoid_loss(
    logits_NM: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    ignored_NM: Tensor | None = None,
    soft_NM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Every pair of image and place for itself, right or wrong; arguments and results as `cross_entropy`.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, eq. 1.
    """
    own_NM = torch.zeros_like(logits_NM, dtype=torch.bool).scatter_(1, target_N[:, None], True)
    right_NM = own_NM.float() if soft_NM is None else soft_NM.masked_fill(own_NM, 1.0)
    nats_NM = F.binary_cross_entropy_with_logits(logits_NM, right_NM, reduction="none")
    if ignored_NM is not None:
        ignored_NM = ignored_NM & ~own_NM
        nats_NM = nats_NM.masked_fill(ignored_NM, 0.0)
        logits_NM = logits_NM.masked_fill(ignored_NM, float("-inf"))
    return nats_NM.sum(dim=1) @ weight_N, _found(logits_NM, target_N) @ weight_N


@torch.no_grad()
def _found(logits_NM: Tensor, target_N: Tensor) -> Tensor:
    """(N,) 1 where the own candidate scored highest."""
    return (logits_NM.argmax(dim=1) == target_N).float()
