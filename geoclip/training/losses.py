"""The loss: candidate locations with their noise, masks, soft targets, and the loss of the logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.data.batch import copied_to, with_tensors
from geoclip.distributed import gather_with_gradient
from geoclip.geo.geodesy import displaced, jitter, pairwise_km
from geoclip.model.geoclip import Embedded


def same_location(gps_deg_B2: Tensor, candidates_deg_M2: Tensor) -> Tensor:
    """(B, M) whether candidate j has exactly the coordinates of row i."""
    return (gps_deg_B2[:, None] == candidates_deg_M2).all(dim=2)


def cross_entropy(
    logits_NM: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    ignored_NM: Tensor | None = None,
    soft_NM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding each row's target among M candidates.

    Args:
        logits_NM: of N images among M locations, or of N locations among M images.
        target_N: column of each row's own candidate.
        weight_N: of each row in both results; 0 for an image that could not be read.
        ignored_NM: candidates to ignore; a row's own is never ignored.
        soft_NM: soft target of each candidate, in [0, 1], before normalisation; None: 1 for the target, else 0.

    Returns:
        The loss in nats, and the share of rows whose own candidate scored highest (detached).

    Source: GeoCLIP, NeurIPS 2023, eq. 3, for images among locations with one view per image, as in the released code.
    """
    own_NM, ignored_NM, logits_NM = _masked(logits_NM, target_N, ignored_NM)
    if soft_NM is None:
        nats_N = F.cross_entropy(logits_NM, target_N, reduction="none")
    else:
        share_NM = soft_NM.masked_fill(own_NM, 1.0)
        log_NM = logits_NM.log_softmax(dim=1)
        if ignored_NM is not None:
            share_NM, log_NM = share_NM.masked_fill(ignored_NM, 0.0), log_NM.masked_fill(ignored_NM, 0.0)
        nats_N = -(share_NM / share_NM.sum(dim=1, keepdim=True) * log_NM).sum(dim=1)
    return nats_N @ weight_N, _recall(logits_NM, target_N, weight_N)


def sigmoid_loss(
    logits_NM: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    ignored_NM: Tensor | None = None,
    soft_NM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of every pair of image and location; arguments and results as `cross_entropy`.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, eq. 1.
    """
    own_NM, ignored_NM, masked_NM = _masked(logits_NM, target_N, ignored_NM)
    right_NM = own_NM.float() if soft_NM is None else soft_NM.masked_fill(own_NM, 1.0)
    nats_NM = F.binary_cross_entropy_with_logits(logits_NM, right_NM, reduction="none")
    if ignored_NM is not None:
        nats_NM = nats_NM.masked_fill(ignored_NM, 0.0)
    return nats_NM.sum(dim=1) @ weight_N, _recall(masked_NM, target_N, weight_N)


def _masked(logits_NM: Tensor, target_N: Tensor, ignored_NM: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Which candidate is each row's own, which are ignored, and the logits, -inf where they are ignored."""
    own_NM = torch.zeros_like(logits_NM, dtype=torch.bool).scatter_(1, target_N[:, None], True)
    if ignored_NM is None:
        return own_NM, None, logits_NM
    ignored_NM = ignored_NM & ~own_NM
    return own_NM, ignored_NM, logits_NM.masked_fill(ignored_NM, float("-inf"))


@torch.no_grad()
def _recall(logits_NM: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
    """The weighted share of rows whose own candidate scored highest."""
    return (logits_NM.argmax(dim=1) == target_N).float() @ weight_N


@dataclass(kw_only=True, slots=True)
class Draws:
    """The random numbers of one step; None where none are needed."""

    batch_G2: Tensor | None = None  # N(0, 1), for the batch's noise
    queue_S2: Tensor | None = None  # N(0, 1), for the queue's noise
    hard_H2: Tensor | None = None  # uniform in [0, 1), for hard negatives

    def to(self, device: torch.device) -> Draws:
        """A copy on a device; the host does not wait for it."""
        return with_tensors(self, partial(copied_to, device=device))


@dataclass(kw_only=True, slots=True, frozen=True)
class Objective:
    """The settings of a loss.

    Source of the soft targets: Haas et al., "PIGEON: Predicting Image Geolocations", CVPR 2024, section 3.2. There
    they smooth over cells, here over locations.
    """

    kind: Literal["one_way", "symmetric", "sigmoid"] = "one_way"  # one_way: image to location
    views: int = 1  # augmented views of each picture
    batch_noise_m: float = 0.0  # standard deviation of the noise on the batch's coordinates
    queue_noise_m: float = 0.0  # and on the queue's
    mask_same_place: bool = True  # a candidate with exactly the picture's coordinates is no negative
    # mask: ignore candidates within the radius; soften: a candidate at d km has the target exp(-d / near_radius_km)
    near: Literal["mask", "soften"] | None = None
    near_radius_km: float = 25.0
    hard_negatives: int = 0  # additional candidates per picture, at one to two times hard_radius_km from it
    hard_radius_km: float = 100.0

    def draw(self, batch: int, queue: int, generator: torch.Generator) -> Draws:
        """The random numbers of a step with `batch` pictures on all ranks and `queue` coordinates in the queue.

        The generator is on the CPU and in the same state on every rank, so that all ranks add the same noise.
        """
        hard, draws = batch * self.hard_negatives, Draws()
        if hard:
            draws.hard_H2 = torch.rand((hard, 2), generator=generator, dtype=torch.float64)
        if self.batch_noise_m and batch:
            draws.batch_G2 = torch.randn((batch, 2), generator=generator)
        if self.queue_noise_m and queue:
            draws.queue_S2 = torch.randn((queue, 2), generator=generator)
        return draws

    def candidates(self, gps_deg_G2: Tensor, queue_S2: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(M, 2) degrees for the model to embed, and (M, 2) the same without noise.

        In order: the pictures of all ranks, the queue, hard negatives.
        """
        noisy_G2, noisy_S2, hard_H2 = gps_deg_G2, queue_S2, gps_deg_G2[:0]
        if draws.batch_G2 is not None:
            noisy_G2 = jitter(gps_deg_G2, self.batch_noise_m, draws.batch_G2)
        if draws.queue_S2 is not None:
            noisy_S2 = jitter(queue_S2, self.queue_noise_m, draws.queue_S2)
        if draws.hard_H2 is not None:
            hard_H2 = displaced(gps_deg_G2, self.hard_radius_km, self.hard_negatives, draws.hard_H2)
        return torch.cat((noisy_G2, noisy_S2, hard_H2)), torch.cat((gps_deg_G2, queue_S2, hard_H2))

    def pairs(
        self,
        gps_deg_B2: Tensor,
        true_M2: Tensor,
        present_B: Tensor,
        present_G: Tensor,
        first: int,
        queue_SD: Tensor | None = None,
    ) -> Pairs:
        """Weights, masks and soft targets of this rank's pictures against the candidates.

        Args:
            gps_deg_B2: this rank's coordinates.
            true_M2: the candidates without noise.
            present_B: 0 for a picture of this rank that could not be read, else 1.
            present_G: the same for the pictures of all ranks.
            first: the column of this rank's first picture.
            queue_SD: embeddings of the queue's candidates; None if the model embeds them.
        """
        ignored_BM = same_location(gps_deg_B2, true_M2) if self.mask_same_place else None
        soft_BM = None
        if self.near is not None:
            km_BM = pairwise_km(gps_deg_B2, true_M2)
            if self.near == "soften":
                soft_BM = (-km_BM / self.near_radius_km).exp().float()
            else:
                near_BM = km_BM < self.near_radius_km
                ignored_BM = near_BM if ignored_BM is None else ignored_BM | near_BM
        # DDP takes the mean over ranks; with these weights it is the mean over all pictures that could be read.
        weight_B = present_B * (len(present_G) / len(present_B)) / present_G.sum().clamp(min=1)
        return Pairs(
            objective=self,
            first=first,
            weight_B=weight_B,
            present_G=present_G,
            ignored_BM=ignored_BM,
            soft_BM=soft_BM,
            queue_SD=queue_SD,
        )


@dataclass(kw_only=True, slots=True, frozen=True)
class Pairs:
    """Weights, masks and soft targets of pictures against candidates; a call with the embeddings returns the loss."""

    objective: Objective
    first: int  # column of this rank's first picture
    weight_B: Tensor
    present_G: Tensor
    ignored_BM: Tensor | None
    soft_BM: Tensor | None
    queue_SD: Tensor | None

    def __call__(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The loss in nats, and the share of views whose own coordinates scored highest (detached)."""
        if self.queue_SD is not None:
            batch_GD, hard_HD = embedded.location_MD.tensor_split([len(self.present_G)])
            embedded = embedded._replace(location_MD=torch.cat((batch_GD, self.queue_SD, hard_HD)))
        logits_NM = (embedded.scale * embedded.image_BD @ embedded.location_MD.T).float()
        if embedded.bias is not None:
            logits_NM = logits_NM + embedded.bias

        def per_view(rows: Tensor) -> Tensor:
            views = self.objective.views
            return rows if views == 1 else rows.repeat_interleave(views, dim=0)

        loss_of = sigmoid_loss if self.objective.kind == "sigmoid" else cross_entropy
        loss, recall = loss_of(
            logits_NM,
            per_view(self._target_B()),
            per_view(self.weight_B / self.objective.views),
            None if self.ignored_BM is None else per_view(self.ignored_BM),
            None if self.soft_BM is None else per_view(self.soft_BM),
        )
        if self.objective.kind == "symmetric":
            loss = (loss + self._gps_to_image(embedded)) / 2
        return loss, recall

    def _target_B(self) -> Tensor:
        return torch.arange(self.first, self.first + len(self.weight_B), device=self.weight_B.device)

    def _gps_to_image(self, embedded: Embedded) -> Tensor:
        """The loss location -> image: each of this rank's coordinates against the pictures of all ranks.

        With several views it is the mean over the views.
        """
        columns, rows = len(self.present_G), len(self.weight_B)
        location_BD = embedded.location_MD[self.first : self.first + rows]
        image_GVD = gather_with_gradient(embedded.image_BD).view(columns, self.objective.views, -1)
        ignored_BG = (self.present_G == 0).expand(rows, -1)
        if self.ignored_BM is not None:
            ignored_BG = ignored_BG | self.ignored_BM[:, :columns]
        soft_BG = None if self.soft_BM is None else self.soft_BM[:, :columns]
        losses = []
        for image_GD in image_GVD.unbind(1):
            logits_BG = (embedded.scale * location_BD @ image_GD.T).float()
            losses.append(cross_entropy(logits_BG, self._target_B(), self.weight_B, ignored_BG, soft_BG)[0])
        return torch.stack(losses).mean()
