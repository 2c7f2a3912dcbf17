"""`fidelity=released` minimises the same losses as the released `train` function, step by step; `paper` does not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoclip import load_location_encoder
from geoclip.config import TrainConfig
from geoclip.data.batch import Batch
from geoclip.factory.training import build_objective
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.queue import GPSQueue, normal_on_circle
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe, train_step
from tests.config.test_configs import train_config
from tests.model.released import TINY_PX, released_train, tiny_released_geoclip, write_tiny_clip

STEPS, BATCH, QUEUE, PX = 20, 4, 16, TINY_PX
LR = 3e-3  # of plain gradient descent: Adam takes full steps along gradients that are only rounding errors


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def released(tiny_clip: Path) -> nn.Module:
    """The authors' model with their weights, on the tiny CLIP."""
    model: nn.Module = tiny_released_geoclip(tiny_clip, queue_size=QUEUE, seed=1)
    return model


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 pixels and coordinates; in every third batch one location is in the queue too, and one is there twice."""
    generator = torch.Generator().manual_seed(2)
    seen = uniform_on_sphere(BATCH, generator)
    for step in range(STEPS):
        pixels = torch.randint(0, 256, (BATCH, 3, PX, PX), generator=generator, dtype=torch.uint8)
        gps_deg = uniform_on_sphere(BATCH, generator)
        if step % 3 == 0:
            gps_deg[0], gps_deg[2] = seen[1], gps_deg[1]
        seen = gps_deg
        yield pixels, gps_deg


def their_losses(model: nn.Module, config: TrainConfig) -> list[float]:
    """Losses of the authors' loop, on pixels normalised as by their data loader."""
    losses: list[float] = []
    entropy = nn.CrossEntropyLoss()

    def criterion(logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = entropy(logits, targets)
        losses.append(loss.item())
        return loss

    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (config.encoder.mean, config.encoder.std))
    loader = [((pixels.float() / 255 - mean) / std, gps) for pixels, gps in batches()]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    released_train().train(loader, model, optimizer, 0, BATCH, "cpu", criterion=criterion)
    return losses


def our_losses(released: Any, tiny_clip: Path, config: TrainConfig, steps: int = STEPS) -> list[float]:
    """Losses of our step: same start, same batches, the objective and normalisation of the configuration."""
    image = ImageEncoder(ClipBackbone.from_pretrained(str(tiny_clip)), mean=config.encoder.mean, std=config.encoder.std)
    image.head.load_state_dict(released.image_encoder.mlp.state_dict())
    model = GeoCLIP(image, load_location_encoder()).train()
    with torch.no_grad():
        model.logit_scale.copy_(released.logit_scale)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = TrainState(
        model=model,
        parallel=model,
        queue=GPSQueue(released.get_gps_queue().clone()),
        optimizer=torch.optim.SGD(trained, lr=LR, fused=True),
        noise=torch.Generator().manual_seed(0),
    )
    recipe = Recipe(
        last_step=STEPS,
        lr_at=lambda _: LR,
        objective=build_objective(config.loss, config.queue),
        grad_clip=None,
        logit_scale_max=config.loss.logit_scale_max,
        autocast=None,
    )
    return [
        train_step(state, Batch(images=pixels, gps_deg_B2=gps, keys=[""] * BATCH), recipe).sums[0].item()
        for pixels, gps in islice(batches(), steps)
    ]


@pytest.mark.slow
def test_released_fidelity_has_the_losses_of_the_released_loop(released: nn.Module, tiny_clip: Path) -> None:
    config = train_config("fidelity=released")
    ours = our_losses(released, tiny_clip, config)
    paper = our_losses(released, tiny_clip, train_config("fidelity=paper"), steps=5)
    theirs = their_losses(copy.deepcopy(released), config)
    assert len(theirs) == STEPS
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(theirs) - min(theirs) > 0.1, "the batches differ"
    assert all(abs(one - other) > 1e-3 for one, other in zip(paper, theirs, strict=False))


def test_the_released_queue_starts_within_one_degree_of_the_origin(released: Any) -> None:
    for start in (released.get_gps_queue(), normal_on_circle(QUEUE, torch.Generator().manual_seed(0))):
        assert start.norm(dim=1).tolist() == pytest.approx([1.0] * QUEUE, abs=1e-6)


def test_each_fault_has_its_own_key() -> None:
    released, paper = train_config("fidelity=released"), train_config()
    assert (released.queue.start.value, paper.queue.start.value) == ("released", "train")
    assert released.queue.batch_noise_m == released.queue.queue_noise_m == 0 < paper.queue.batch_noise_m
    assert not released.loss.mask_same_place and paper.loss.mask_same_place
    assert released.loss.logit_scale_max is None and paper.loss.logit_scale_max is not None
    assert released.encoder.mean != paper.encoder.mean == released.encoder.prediction_mean
    assert (released.protocol.value, paper.protocol.value) == ("released", "sphere")
    fixed = train_config("fidelity=released", "queue.start=train")
    assert fixed.queue.start.value == "train" and fixed.queue.batch_noise_m == 0
