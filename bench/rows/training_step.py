"""A training step from kept features: batch 512, queue 4,096, float32, the released code's mathematics."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import Row, compare, products
from bench.released import clip_features, released_geoclip
from geoclip.data.batch import Batch
from geoclip.evaluation.gallery import without_denormals
from geoclip.factory.training import compile_layers
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.queue import GPSQueue
from geoclip.training.losses import Objective
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe, train_step

LR, WEIGHT_DECAY = 3e-5, 1e-6
LARGEST_DIFFERENCE = 1e-5  # of a tensor's gradient, by norm


def measure(quick: bool) -> list[Row]:
    """Our step from random weights, as it is and with `compute.compile=true`, and from the released weights."""
    batch, queue = (64, 256) if quick else (512, 4096)
    rows = [step_row(batch, queue, turns=5), step_row(batch, queue, released_weights=True, turns=5)]
    return rows if quick else [*rows, step_row(batch, queue, compiled=True, turns=7)]


def step_row(batch: int, queue: int, *, turns: int, compiled: bool = False, released_weights: bool = False) -> Row:
    """One row: gradients are compared after one step of each from the same start, then both go on."""
    features_BF = clip_features(batch)
    generator = torch.Generator().manual_seed(3)
    gps_deg_B2, start_S2 = uniform_on_sphere(batch, generator), uniform_on_sphere(queue, generator)
    head, locations = _released_weights() if released_weights else _random_weights()
    ours = our_step(copy.deepcopy(head), copy.deepcopy(locations), features_BF, gps_deg_B2, start_S2, compiled)
    released = released_step(head, locations, features_BF, gps_deg_B2, start_S2)

    def agree(mine: list[Tensor], theirs: list[Tensor]) -> str:
        worst = max(float((one - other).norm() / other.norm()) for one, other in zip(mine, theirs, strict=True))
        assert worst < LARGEST_DIFFERENCE, f"gradients differ by {worst:.2g} of their norm"
        return f"gradients differ by {worst:.0e} of their norm"

    first_layers = 3 * 512 * 1024 * (batch + queue) + 768 * 768 * batch  # no gradient to their inputs
    weights = sum(one.numel() for name, one in locations.named_parameters() if "weight" in name)
    forward = weights * (batch + queue) + (768 * 768 + 768 * 512) * batch + 512 * batch * (batch + queue)
    return compare(
        f"training step, batch {batch}, queue {queue:,}"
        + (", released weights" if released_weights else "")
        + (", compiled" if compiled else ""),
        ours=ours,
        released=released,
        agree=agree,
        turns=turns,
        target=1.8,
        limit=products(2 * (3 * forward - first_layers)),
        note="`compute.compile=true`" if compiled else "",
    )


def _random_weights() -> tuple[nn.Sequential, LocationEncoder]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 512)), LocationEncoder()


def _released_weights() -> tuple[nn.Sequential, LocationEncoder]:
    """They hold denormals, which slow the released step down; our programs flush them to 0."""
    model = released_geoclip()[0]
    assert isinstance(model.image_encoder.head, nn.Sequential)
    assert isinstance(model.location_encoder, LocationEncoder)
    return model.image_encoder.head, model.location_encoder


def gradients(head: nn.Module, locations: nn.Module) -> list[Tensor]:
    """Of every weight, in the order of our modules."""
    return [one.grad for one in (*head.parameters(), *locations.parameters()) if one.grad is not None]


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """In the order of the computation."""
    return [one for one in module.modules() if isinstance(one, nn.Linear)]


def our_step(
    head: nn.Sequential,
    locations: LocationEncoder,
    features_BF: Tensor,
    gps_deg_B2: Tensor,
    start_S2: Tensor,
    compiled: bool,
) -> Callable[[], list[Tensor]]:
    """The trainer's own step, without what the released code lacks: noise, masks, clipping."""
    image = ImageEncoder(None, feature_dim=768, hidden_dim=768, embedding_dim=512, frozen=True)
    image.head.load_state_dict(head.state_dict())
    # In this process the released step runs too, and a flag of the processor would serve both.
    model = GeoCLIP(image, without_denormals(locations)).train()
    if compiled:
        compile_layers(model, torch.device("cpu"))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    state = TrainState(
        model=model, parallel=model, queue=GPSQueue(start_S2.clone()), optimizer=optimizer, noise=torch.Generator()
    )  # fmt: skip
    recipe = Recipe(
        last_step=1000,
        lr_at=lambda _: LR,
        objective=Objective(mask_same_place=False),
        grad_clip=None,
        logit_scale_max=None,
        autocast=None,
    )
    batch = Batch(images=features_BF, gps_deg_B2=gps_deg_B2, keys=[""] * len(features_BF))

    def step() -> list[Tensor]:
        train_step(state, batch, recipe)
        return gradients(model.image_encoder.head, model.location_encoder)

    return step


def released_step(
    head: nn.Sequential, locations: LocationEncoder, features_BF: Tensor, gps_deg_B2: Tensor, start_S2: Tensor
) -> Callable[[], list[Tensor]]:
    """The authors' loop on their model, with these weights in it."""
    model: Any = copy.deepcopy(released_geoclip()[1])
    theirs = [getattr(model.location_encoder, f"LocEnc{number}") for number in range(3)]
    model.image_encoder.mlp.load_state_dict(head.state_dict())
    with torch.no_grad():
        model.logit_scale.fill_(math.log(1 / 0.07))
        for branch, capsule in zip(locations.branches, theirs, strict=True):
            capsule.capsule[0].b.copy_(branch.freq_KA)
            for mine, other in zip(linear_layers(branch), linear_layers(capsule), strict=True):
                other.load_state_dict(mine.state_dict())
    return released_loop(model, features_BF, gps_deg_B2, start_S2)


def released_loop(model: Any, features_BF: Tensor, gps_deg_B2: Tensor, start_S2: Tensor) -> Callable[[], list[Tensor]]:
    """The body of the authors' `train` loop on their model, whose CLIP takes features for pictures."""
    model.train()
    theirs = [getattr(model.location_encoder, f"LocEnc{number}") for number in range(3)]
    model.queue_size = len(start_S2)
    model.gps_queue = start_S2.t().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    criterion = nn.CrossEntropyLoss()
    targets = torch.arange(len(features_BF), device=features_BF.device)

    def step() -> list[Tensor]:
        optimizer.zero_grad()
        gps_all = torch.cat([gps_deg_B2, model.get_gps_queue()], dim=0)
        model.dequeue_and_enqueue(gps_deg_B2)
        criterion(model(features_BF, gps_all), targets).backward()
        optimizer.step()
        return [
            one.grad
            for module in (model.image_encoder.mlp, *theirs)
            for one in module.parameters()
            if one.grad is not None
        ]

    return step
