"""A model of nothing but the parts, and a state around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoclip.data.batch import Batch
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.gps_queue import GPSQueue
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.training.losses import Objective
from geoclip.training.state import TrainState, WeightAverage
from geoclip.training.step import Recipe


@pytest.fixture
def new_state() -> Callable[..., TrainState]:
    """`new_state(seed, embedding_dim=4, frozen=False, dropout=0, ema=None)`: pictures of 2 × 2 pixels."""

    def make(
        seed: int = 0, *, embedding_dim: int = 4, frozen: bool = False, dropout: float = 0.0, ema: float | None = None
    ) -> TrainState:
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Dropout(dropout))
        image = ImageEncoder(backbone, feature_dim=6, hidden_dim=5, embedding_dim=embedding_dim, frozen=frozen)
        location = LocationEncoder([1.0], frequencies=3, hidden_dim=5, depth=1, embedding_dim=embedding_dim)
        model = GeoCLIP(image, location).train()
        return TrainState(
            model=model,
            parallel=model,
            queue=GPSQueue(uniform_on_sphere(6, torch.Generator().manual_seed(seed))),
            optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, fused=True),
            noise=torch.Generator().manual_seed(seed),
            average=None if ema is None else WeightAverage.of(model, decay=ema),
        )

    return make


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """`recipe(last_step=4, …)`: a constant learning rate, no noise."""

    def make(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "last_step": 4,
            "lr_at": lambda step: 1e-2,
            "objective": Objective(),
            "grad_clip": None,
            "logit_scale_max": 100.0,
            "autocast": None,
        }
        return Recipe(**(values | changes))

    return make


@pytest.fixture
def new_batch() -> Callable[..., Batch]:
    """`new_batch(number, size=8, features=False)`: random, the same for the same number."""

    def make(number: int, size: int = 8, *, features: bool = False) -> Batch:
        generator = torch.Generator().manual_seed(100 + number)
        images: Tensor = (
            torch.randn(size, 6, generator=generator)
            if features
            else torch.randint(0, 256, (size, 3, 2, 2), generator=generator, dtype=torch.uint8)
        )
        keys = [f"{number}-{row}" for row in range(size)]
        return Batch(images=images, gps_deg_B2=uniform_on_sphere(size, generator), keys=keys)

    return make
