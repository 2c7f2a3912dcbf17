"""A small stream, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoclip.data.augment import Augmentation
from geoclip.data.batch import Batch
from geoclip.data.decoding import PictureDecoder
from geoclip.data.shard_list import read_shards
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.subset import take_fraction


@pytest.fixture
def plan_of() -> Callable[..., StreamPlan]:
    """A plan over the shards at `root`; four streams, batches of eight."""

    def plan(root: Path, *, fraction: float = 1.0, seed: int = 0, **changes: Any) -> StreamPlan:
        return StreamPlan(
            subset=take_fraction(read_shards(str(root), "train"), fraction, seed),
            streams=changes.get("streams", 4),
            batch_size=changes.get("batch_size", 8),
            shuffle_buffer=changes.get("shuffle_buffer", 10),
            seed=seed,
            decoder=PictureDecoder(
                image_px=changes.get("image_px", 16),
                augmentation=changes.get("augmentation", Augmentation()),
                seed=seed,
            ),
        )

    return plan


@pytest.fixture
def batches_of() -> Callable[..., list[Batch]]:
    """The batches of one rank from step `first` to `last`."""

    def batches(
        plan: StreamPlan, *, rank: int = 0, ranks: int = 1, workers: int = 0, first: int = 0, last: int = 12
    ) -> list[Batch]:
        return list(
            train_batches(
                plan, rank=rank, world_size=ranks, workers=workers, first_step=first, last_step=last
            )
        )

    return batches


@pytest.fixture
def global_keys(batches_of: Callable[..., list[Batch]]) -> Callable[..., list[list[str]]]:
    """Keys of every global batch: the ranks' batches side by side."""

    def keys(plan: StreamPlan, *, ranks: int = 1, **how: int) -> list[list[str]]:
        parts = [
            [batch.keys for batch in batches_of(plan, rank=rank, ranks=ranks, **how)] for rank in range(ranks)
        ]
        return [[key for keys in step for key in keys] for step in zip(*parts, strict=True)]

    return keys
