"""Above data.max_bad_fraction a run stops, on every rank, and names the worst shards."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from geoclip.data.batch import Batch, Skip
from geoclip.distributed import World
from geoclip.errors import DataError
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.backbones import ResNetBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.queue import GPSQueue
from geoclip.training.loop import Hooks, train
from geoclip.training.losses import Objective
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


def batches(broken_per_batch: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        present = torch.arange(8) >= broken_per_batch
        skipped = [
            Skip(shard="000007.tar", key=str(row), reason="truncated picture") for row in range(broken_per_batch)
        ]
        yield Batch(
            images=torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8),
            gps_deg_B2=uniform_on_sphere(8, generator),
            keys=[""] * 8,
            present_B=present,
            skipped=skipped,
        )


def run(broken_per_batch: int, max_bad_fraction: float, steps: int = 12) -> tuple[list[dict[str, float]], int]:
    torch.manual_seed(0)
    encoder = ImageEncoder(
        ResNetBackbone(stem_dim=8, widths=[8], depths=[1]), feature_dim=8, hidden_dim=8, embedding_dim=8, frozen=False
    )
    model = GeoCLIP(encoder, LocationEncoder([1.0], frequencies=4, hidden_dim=8, depth=1, embedding_dim=8))
    state = TrainState(
        model=model,
        parallel=model,
        queue=GPSQueue(torch.empty(0, 2)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, fused=True),
        noise=torch.Generator().manual_seed(0),
    )
    recipe = Recipe(
        last_step=steps,
        lr_at=lambda step: 0.1,
        objective=Objective(),
        grad_clip=None,
        logit_scale_max=100.0,
        autocast=None,
        max_bad_fraction=max_bad_fraction,
    )
    rows: list[dict[str, float]] = []
    hooks = Hooks(
        record=lambda _, values: rows.append(values), validate=lambda _: True, checkpoint=lambda _: None, record_every=4
    )
    report = train(state, batches(broken_per_batch), recipe, hooks, WORLD)
    return rows, report.counts.total()


def test_a_few_broken_pictures_are_counted_and_the_loss_stays_a_number() -> None:
    rows, total = run(broken_per_batch=2, max_bad_fraction=0.3)
    assert [row["broken"] for row in rows] == [8, 8, 8] and total == 24
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_too_many_end_the_run_and_name_the_shards() -> None:
    with pytest.raises(DataError) as stopped:
        run(broken_per_batch=3, max_bad_fraction=0.3)
    for part in ("12 of 32 pictures", "data.max_bad_fraction=0.3", "000007.tar (12)", "12 × truncated picture"):
        assert part in str(stopped.value)


def test_a_batch_without_one_whole_picture_teaches_nothing_and_breaks_nothing() -> None:
    rows, _ = run(broken_per_batch=8, max_bad_fraction=1.0, steps=4)
    assert rows[0]["loss"] == 0 and rows[0]["broken"] == 32
