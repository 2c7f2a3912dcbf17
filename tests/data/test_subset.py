"""Fractions of a data set, and its samples assigned to streams: exact counts."""

from __future__ import annotations

import pytest

from geoclip.data.shard_index import SampleRange
from geoclip.data.shards import Shard, all_samples, assign_to_streams, stream_sizes, take_fraction

SHARDS = [Shard(path=f"{number}.tar", samples=count) for number, count in enumerate([100, 101, 100, 57, 3, 0, 100])]
TOTAL = 461


def positions(ranges: list[SampleRange]) -> list[tuple[str, int]]:
    return [(span.path, position) for span in ranges for position in range(span.start, span.stop)]


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
def test_stream_lengths_differ_by_at_most_one_and_each_sample_is_assigned_once(streams: int) -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    assigned = assign_to_streams(subset, streams, seed=0, epoch=3)
    counts = [sum(len(span) for span in ranges) for ranges in assigned]
    everything = [position for ranges in assigned for position in positions(ranges)]
    assert counts == stream_sizes(TOTAL, streams) and max(counts) - min(counts) <= 1
    assert sorted(everything) == sorted(positions(subset))


def test_epochs_differ_and_repeat() -> None:
    subset = take_fraction(SHARDS, 1.0, 0)
    assert (
        assign_to_streams(subset, 4, 0, 1) == assign_to_streams(subset, 4, 0, 1) != assign_to_streams(subset, 4, 0, 2)
    )


def test_the_first_samples_in_order() -> None:
    assert sum(map(len, all_samples(SHARDS))) == TOTAL
    assert all_samples(SHARDS, 150) == [
        SampleRange(path="0.tar", start=0, stop=100),
        SampleRange(path="1.tar", start=0, stop=50),
    ]
