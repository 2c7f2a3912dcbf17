"""Fractions and dealing: pure functions with exact counts."""

from __future__ import annotations

import pytest

from geoclip.data.shard_list import Shard
from geoclip.data.subset import Stretch, deal, stream_sizes, take_fraction, whole

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
def test_streams_are_equally_long_to_within_one_and_everything_is_dealt_once(streams: int) -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    dealt = deal(subset, streams, seed=0, epoch=3)
    counts = [sum(len(stretch) for stretch in stretches) for stretches in dealt]
    everything = [position for stretches in dealt for position in positions(stretches)]
    assert counts == stream_sizes(TOTAL, streams) and max(counts) - min(counts) <= 1
    assert sorted(everything) == sorted(positions(subset))


def test_epochs_differ_and_repeat() -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    assert deal(subset, 4, 0, 1) == deal(subset, 4, 0, 1) != deal(subset, 4, 0, 2)


def test_the_first_samples_in_order() -> None:
    assert sum(map(len, whole(SHARDS))) == TOTAL
    assert whole(SHARDS, 150) == [
        Stretch(path="0.tar", start=0, stop=100),
        Stretch(path="1.tar", start=0, stop=50),
    ]
