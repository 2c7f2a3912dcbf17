"""The queue: first in, first out."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from geoclip.geo.geodesy import haversine_km, uniform_on_sphere
from geoclip.model.queue import GPSQueue, draw_queue_start


def rows(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].repeat(1, 2)


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [8], [20], [7, 9, 1, 16], [5, 8, 8, 2]])
def test_it_contains_the_last_rows_pushed(counts: list[int]) -> None:
    queue, reference, start = GPSQueue(rows(-8, 8)), deque(range(-8, 0), maxlen=8), 0
    for count in counts:
        queue.push(rows(start, count))
        reference.extend(range(start, start + count))
        start += count
    assert sorted(queue.negatives()[:, 0].tolist()) == sorted(reference)


def test_the_oldest_is_overwritten_first() -> None:
    queue = GPSQueue(rows(0, 4))
    queue.push(rows(10, 3))
    queue.push(rows(20, 2))
    assert sorted(queue.negatives()[:, 0].tolist()) == [11, 12, 20, 21]


def test_an_empty_queue_stays_empty() -> None:
    queue = GPSQueue(torch.empty((0, 2)))
    queue.push(rows(0, 5))
    assert queue.negatives().shape == (0, 2)


def test_queue_does_not_start_near_the_origin() -> None:
    generator = torch.Generator().manual_seed(0)
    origin = torch.zeros(1, 2)
    locations = uniform_on_sphere(300, generator)
    for start in (uniform_on_sphere(1000, generator), draw_queue_start(locations, 1000, generator)):
        assert (haversine_km(start, origin) < 500).float().mean() < 0.02


def test_a_start_from_locations_uses_each_equally() -> None:
    drawn = draw_queue_start(rows(0, 5), 12, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn[:, 0].long())
    assert sorted(counts.tolist()) == [2, 2, 2, 3, 3] and drawn.shape == (12, 2)


def test_a_push_does_not_change_earlier_negatives() -> None:
    queue = GPSQueue(rows(0, 4))
    before = queue.negatives()
    queue.push(rows(9, 2))
    assert torch.equal(before, rows(0, 4))


def test_state_survives_a_restart() -> None:
    queue, restored = GPSQueue(rows(0, 4)), GPSQueue(rows(50, 4))
    queue.push(rows(10, 3))
    restored.load_state_dict(queue.state_dict())
    for one in (queue, restored):
        one.push(rows(20, 2))
    assert torch.equal(queue.negatives(), restored.negatives())
    with pytest.raises(ValueError, match=r"4 .* 3"):
        GPSQueue(rows(0, 3)).load_state_dict(queue.state_dict())
