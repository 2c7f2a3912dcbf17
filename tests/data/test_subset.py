"""Fractions and dealing: pure functions with exact counts."""

from __future__ import annotations

import pytest

from geoclip.data.shard_index import Shard
from geoclip.data.subset import Stretch, deal, steps_per_epoch, take_fraction

SHARDS = [
    Shard(path=f"{number}.tar", samples=count) for number, count in enumerate([100, 101, 100, 57, 3, 0, 100])
]
TOTAL = 461


def positions(stretches: list[Stretch]) -> list[tuple[str, int]]:
    return [
        (stretch.path, position) for stretch in stretches for position in range(stretch.start, stretch.stop)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fractions_are_nested_and_exact(seed: int) -> None:
    smaller: set[tuple[str, int]] = set()
    for fraction in (0.001, 0.05, 0.1, 0.2, 0.5, 1.0):
        taken = positions(take_fraction(SHARDS, fraction, seed))
        assert len(taken) == len(set(taken)) == max(1, round(fraction * TOTAL))
        assert smaller <= set(taken)
        smaller = set(taken)


def test_a_fraction_depends_on_the_seed() -> None:
    assert take_fraction(SHARDS, 0.2, 0) != take_fraction(SHARDS, 0.2, 1)


@pytest.mark.parametrize("streams", [1, 4, 16, 50])
def test_every_stream_is_equally_long_and_nothing_is_dealt_twice(streams: int) -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    dealt = deal(subset, streams, seed=0, epoch=3)
    counts = {sum(len(stretch) for stretch in stretches) for stretches in dealt}
    everything = [position for stretches in dealt for position in positions(stretches)]
    assert counts == {TOTAL // streams}
    assert len(everything) == len(set(everything)) > TOTAL - streams


def test_epochs_differ_and_repeat() -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    assert deal(subset, 4, 0, 1) == deal(subset, 4, 0, 1) != deal(subset, 4, 0, 2)


def test_steps_per_epoch() -> None:
    assert steps_per_epoch(take_fraction(SHARDS, 1.0, 0), streams=4, batch_size=32) == TOTAL // 4 // 8
