"""The stream: the same batches for any number of ranks and workers, and after any interruption."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geoclip.data.batch import Batch
from geoclip.data.shard_index import SampleRange
from geoclip.data.shards import Shard, all_samples, assign_to_streams, stream_sizes, take_fraction
from geoclip.data.stream import StreamPlan, TrainStream
from geoclip.data.transforms import Augmentation
from geoclip.errors import DataError

Shards = Callable[..., Any]
PlanOf = Callable[..., StreamPlan]
KeysOf = Callable[..., list[list[str]]]
BatchesOf = Callable[..., list[Batch]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_300_steps_are_the_same_for_all_ranks_workers_and_interruptions(
    tiny_shards: Shards, plan_of: PlanOf, global_keys: KeysOf, seed: int
) -> None:
    plan = plan_of(tiny_shards([30, 41, 30, 9]).root, seed=seed, image_px=4)  # 110 samples: batches straddle epochs
    expected = global_keys(plan, last=300)
    stops = random.Random(seed).sample(range(1, 300), 3)
    for before, after, stop in (((1, 1), (2, 2), stops[0]), ((2, 0), (1, 2), stops[1]), ((2, 1), (1, 0), stops[2])):
        found = [
            *global_keys(plan, ranks=before[0], workers=before[1], last=stop),
            *global_keys(plan, ranks=after[0], workers=after[1], first=stop, last=300),
        ]
        assert found == expected


@pytest.mark.parametrize("counts", [[10, 11, 10, 9], [7, 30, 1, 5]])
def test_every_epoch_shows_every_sample_exactly_once(
    tiny_shards: Shards, plan_of: PlanOf, global_keys: KeysOf, counts: list[int]
) -> None:
    shards = tiny_shards(counts)
    total = sum(counts)
    steps = global_keys(plan_of(shards.root, batch_size=4), last=total)  # four epochs
    rows = [[step[stream] for step in steps] for stream in range(4)]
    for epoch in range(4):
        sizes = [total // 4 + (stream < total % 4) for stream in range(4)]
        seen = [key for row, size in zip(rows, sizes, strict=True) for key in row[epoch * size : (epoch + 1) * size]]
        if len(seen) == total:  # the longer streams end their last epoch after the last step
            assert Counter(seen) == Counter(dict.fromkeys(shards.gps_deg, 1))
    first, second = (
        [row[epoch * size : (epoch + 1) * size] for row, size in zip(rows, sizes, strict=True)] for epoch in (0, 1)
    )
    assert first != second


def test_the_order_depends_on_buffer_and_seed(tiny_shards: Shards, plan_of: PlanOf, global_keys: KeysOf) -> None:
    root = tiny_shards([40, 40]).root
    mixed = [key for step in global_keys(plan_of(root, streams=1)) for key in step]
    in_order = [key for step in global_keys(plan_of(root, streams=1, shuffle_buffer=1)) for key in step]
    assert mixed != in_order and in_order[:40] == sorted(in_order[:40])
    assert global_keys(plan_of(root, seed=1)) != global_keys(plan_of(root))


def test_pixels_and_coordinates_belong_together(tiny_shards: Shards, plan_of: PlanOf, batches_of: BatchesOf) -> None:
    shards = tiny_shards([16, 16])
    for batch in batches_of(plan_of(shards.root), workers=1, last=4):
        expected = torch.tensor([shards.gps_deg[key] for key in batch.keys])
        torch.testing.assert_close(batch.gps_deg_B2, expected)
        red, green = batch.images[:, 0, 8, 8].float(), batch.images[:, 1, 8, 8].float()
        torch.testing.assert_close(red, (expected[:, 0] + 90).round(), atol=1, rtol=0)
        torch.testing.assert_close(green, ((expected[:, 1] + 180) / 2).round(), atol=1, rtol=0)


def test_augmentation_is_independent_of_workers_and_new_in_every_epoch(
    tiny_shards: Shards, plan_of: PlanOf, batches_of: BatchesOf
) -> None:
    strong = Augmentation(crop_scale_min=0.1, crop_ratio=4 / 3, flip=True, color_jitter=0.8, grayscale=0.2)
    root = tiny_shards([16, 16], size_px=24).root
    plan = plan_of(root, augmentation=strong)
    one, two = batches_of(plan, last=8), batches_of(plan, workers=2, first=2, last=8)
    for a, b in zip(one[2:], two, strict=True):
        assert torch.equal(a.images, b.images)
        assert a.color_BK is not None and b.color_BK is not None and torch.equal(a.color_BK, b.color_BK)
    rows, again = (
        {key: row for batch in half for key, row in zip(batch.keys, colors(batch), strict=True)}
        for half in (one[:4], one[4:])
    )
    assert rows.keys() == again.keys()
    assert sum(torch.equal(rows[key], again[key]) for key in rows) < 16
    assert batches_of(plan_of(root), last=1)[0].color_BK is None


def colors(batch: Batch) -> Tensor:
    assert batch.color_BK is not None
    return batch.color_BK


def bytes_read() -> int:
    """By this process, through read calls."""
    status = Path("/proc/self/io")
    if not status.exists():
        pytest.skip("only Linux counts the bytes that a process reads")
    return int(status.read_text().split()[1])


def test_a_fraction_reads_its_share_of_the_bytes_and_nothing_else(tiny_shards: Shards, plan_of: PlanOf) -> None:
    shards = tiny_shards([60] * 10, size_px=64, noise=True)
    stored = sum(path.stat().st_size for path in shards.paths())
    seen: dict[float, set[str]] = {}
    for fraction in (0.05, 0.1, 0.2, 1.0):
        plan = plan_of(shards.root, fraction=fraction, image_px=4)
        steps = plan.samples // plan.batch_size
        stream = TrainStream(plan, rank=0, world_size=1, first_step=0, last_step=steps)
        before = bytes_read()
        seen[fraction] = {key for batch in stream for key in batch.keys}
        share = (bytes_read() - before) / stored
        assert share < fraction + 0.02, f"{share:.3f} of the bytes for {fraction}"
        assert len(seen[fraction]) == steps * 8
    assert seen[0.2] < seen[1.0]


def test_resuming_does_not_read_earlier_samples(tiny_shards: Shards, plan_of: PlanOf) -> None:
    shards = tiny_shards([600] * 4, size_px=32, noise=True)
    plan = plan_of(shards.root, image_px=4)
    steps = plan.samples // plan.batch_size
    stored = sum(path.stat().st_size for path in shards.paths())
    before = bytes_read()
    next(iter(TrainStream(plan, rank=0, world_size=1, first_step=steps - 5, last_step=steps)))
    assert bytes_read() - before < 0.1 * stored


def test_too_few_samples_name_the_numbers(tiny_shards: Shards, plan_of: PlanOf, batches_of: BatchesOf) -> None:
    with pytest.raises(DataError, match=r"7 .*8.*optim\.batch_size"):
        batches_of(plan_of(tiny_shards([7]).root), last=1)


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
