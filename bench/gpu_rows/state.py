"""A training state of random weights on the device, and its recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.card import Card
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.queue import GPSQueue
from geoclip.training.losses import Objective
from geoclip.training.state import SUMS, TrainState
from geoclip.training.step import Recipe

LR, WEIGHT_DECAY = 3e-5, 1e-6


@dataclass(kw_only=True, slots=True, frozen=True)
class Sizes:
    """Of a location encoder and its queue."""

    queue: int = 4096
    sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)
    frequencies: int = 256
    hidden_dim: int = 1024
    embedding_dim: int = 512


LARGE = Sizes()
SMALL = Sizes(queue=32, frequencies=8, hidden_dim=16, embedding_dim=512)


def state_of(card: Card, encoder: ImageEncoder, sizes: Sizes, device: torch.device | None = None) -> TrainState:
    """At step 0; weights are drawn on the CPU, the same for every device."""
    device = device or card.device
    torch.manual_seed(0)
    locations = LocationEncoder(
        sizes.sigmas, frequencies=sizes.frequencies, hidden_dim=sizes.hidden_dim, embedding_dim=sizes.embedding_dim
    )
    model = GeoCLIP(encoder, locations).to(device).train()
    trained = [one for one in model.parameters() if one.requires_grad]
    return TrainState(
        model=model,
        parallel=model,
        queue=GPSQueue(uniform_on_sphere(sizes.queue, torch.Generator().manual_seed(2))).to(device),
        optimizer=torch.optim.AdamW(trained, lr=LR, weight_decay=WEIGHT_DECAY, fused=True),
        noise=torch.Generator().manual_seed(3),
        sums=torch.zeros(SUMS, device=device),
    )


def recipe_of(card: Card, precision: str, lr: float = LR) -> Recipe:
    """With the paper's noise, the mask, and the clamp: what a run of full_mp16 does."""
    return Recipe(
        last_step=10**9,
        lr_at=lambda _: lr,
        objective=Objective(batch_noise_m=150.0, queue_noise_m=1000.0),
        grad_clip=None,
        logit_scale_max=100.0,
        autocast=torch.bfloat16 if precision == "bf16" else None,
        tf32=precision == "tf32",
    )
