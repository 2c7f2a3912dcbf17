"""What a step minimises: the candidates of every picture, which of them count, and the loss of their logits."""

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
        logits_NM: of N images among M locations, or of N locations among M images.
        target_N: column of each row's own candidate.
        weight_N: of each row in both sums. An image that could not be read weighs 0.
        ignored_NM: candidates that are left out of the sum, such as a location that was photographed twice; a row's own
            is never left out.
        soft_NM: how nearly right each candidate is, in [0, 1]: the target's distribution once it is normalised. None
            puts everything on the target.

    Returns:
        The loss in nats, and the share of rows whose own candidate scored highest (detached).

    Source: GeoCLIP, NeurIPS 2023, eq. 3, for images among locations with one view per image, as in the released code.
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
    """Every pair of image and location for itself, right or wrong; arguments and results as `cross_entropy`.

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


@dataclass(kw_only=True, slots=True)
class Draws:
    """The random numbers of one step; None where nothing is drawn."""

    batch_G2: Tensor | None = None  # N(0, 1), of the batch's noise
    queue_S2: Tensor | None = None  # N(0, 1), of the queue's
    hard_H2: Tensor | None = None  # uniform in [0, 1), of hard negatives

    def to(self, device: torch.device) -> Draws:
        """The same on a device; the host does not wait for the copy."""
        return with_tensors(self, partial(copied_to, device=device))


@dataclass(kw_only=True, slots=True, frozen=True)
class Objective:
    """The numbers of a loss.

    Attributes:
        kind: image to GPS alone, both directions, or every pair for itself.
        views: augmented views of each picture.
        batch_noise_m: standard deviation of the noise on the batch's coordinates.
        queue_noise_m: and on the queue's.
        mask_same_place: a candidate at the picture's own coordinates is no negative.
        near: candidates within `near_radius_km` are left out, or, softly, a candidate at distance d counts as right by
            exp(-d / near_radius_km).
        near_radius_km: for both.
        hard_negatives: further candidates per picture, at one to two times `hard_radius_km` from its own coordinates.
        hard_radius_km: for them.

    Source of the soft targets: Haas et al., "PIGEON: Predicting Image Geolocations", CVPR 2024, section 3.2, where
    they are over cells; here over locations.
    """

    kind: Literal["one_way", "symmetric", "sigmoid"] = "one_way"
    views: int = 1
    batch_noise_m: float = 0.0
    queue_noise_m: float = 0.0
    mask_same_place: bool = True
    near: Literal["mask", "soften"] | None = None
    near_radius_km: float = 25.0
    hard_negatives: int = 0
    hard_radius_km: float = 100.0

    def draw(self, batch: int, queue: int, generator: torch.Generator) -> Draws:
        """The random numbers of a step.

        Args:
            batch: pictures of all ranks.
            queue: coordinates in the queue.
            generator: on the CPU and in the same state on every rank, so that every device adds the same noise.
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
        """(M, 2) coordinates that the model embeds, and (M, 2) the true ones, without noise; in degrees.

        Args:
            gps_deg_G2: of all ranks' pictures.
            queue_S2: the queue's.
            draws: as `draw` gives them, on the coordinates' device.
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
        """What relates this rank's pictures to the candidates.

        Args:
            gps_deg_B2: their coordinates.
            true_M2: the candidates', all ranks' pictures first.
            present_B: 0 where a picture could not be read.
            present_G: likewise of all ranks.
            first: the candidate that is this rank's first picture's.
            queue_SD: embeddings of the queue's candidates, which the model does not embed then; None: it does.
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
        # DDP takes the mean over ranks: so weighted, it is the mean over all pictures that could be read.
        weight_B = present_B * (len(present_G) / len(present_B)) / present_G.sum().clamp(min=1)
        return Pairs(
            objective=self,
            first=first,
            target_B=torch.arange(first, first + len(gps_deg_B2), device=gps_deg_B2.device),
            weight_B=weight_B,
            present_G=present_G,
            ignored_BM=ignored_BM,
            soft_BM=soft_BM,
            queue_SD=queue_SD,
        )


@dataclass(kw_only=True, slots=True, frozen=True)
class Pairs:
    """Which candidate is whose, which count, and how much; the loss, once all are embedded."""

    objective: Objective
    first: int  # column of this rank's first picture
    target_B: Tensor
    weight_B: Tensor
    present_G: Tensor
    ignored_BM: Tensor | None
    soft_BM: Tensor | None
    queue_SD: Tensor | None = None

    def __call__(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The loss in nats, and the share of views whose own coordinates scored highest (detached)."""
        views = self.objective.views
        if self.queue_SD is not None:
            batch_GD, hard_HD = embedded.location_MD.tensor_split([len(self.present_G)])
            embedded = embedded._replace(location_MD=torch.cat((batch_GD, self.queue_SD, hard_HD)))
        logits_NM = (embedded.scale * embedded.image_BD @ embedded.location_MD.T).float()
        if embedded.bias is not None:
            logits_NM = logits_NM + embedded.bias
        per_view = [
            None if one is None else one.repeat_interleave(views, dim=0) if views > 1 else one
            for one in (self.target_B, self.weight_B / views, self.ignored_BM, self.soft_BM)
        ]
        target_N, weight_N, ignored_NM, soft_NM = per_view
        assert target_N is not None and weight_N is not None
        loss_of = sigmoid_loss if self.objective.kind == "sigmoid" else cross_entropy
        loss, recall = loss_of(logits_NM, target_N, weight_N, ignored_NM, soft_NM)
        if self.objective.kind == "symmetric":
            loss = (loss + self._gps_to_image(embedded)) / 2
        return loss, recall

    def _gps_to_image(self, embedded: Embedded) -> Tensor:
        """The other direction: this rank's coordinates among all ranks' pictures, a view at a time."""
        columns = len(self.present_G)
        place_BD = embedded.location_MD[self.first : self.first + len(self.target_B)]
        image_GVD = gather_with_gradient(embedded.image_BD).view(columns, self.objective.views, -1)
        ignored_BG = (self.present_G == 0).expand(len(self.target_B), -1)
        if self.ignored_BM is not None:
            ignored_BG = ignored_BG | self.ignored_BM[:, :columns]
        soft_BG = None if self.soft_BM is None else self.soft_BM[:, :columns]
        losses = [
            cross_entropy(
                (embedded.scale * place_BD @ image_GD.T).float(), self.target_B, self.weight_B, ignored_BG, soft_BG
            )[0]
            for image_GD in image_GVD.unbind(1)
        ]
        return torch.stack(losses).mean()
