"""Which samples an epoch reads, and in which stream: pure functions of (shards, fraction, seed, epoch).

The subset of a fraction is a prefix of the shards in an order that depends on the seed alone, the last of them in
part: subsets are nested, and nothing outside is read. An epoch permutes those shards and cuts their concatenation
into equally long stretches, one per stream, whatever the number of shards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoclip.data.shard_index import Shard


@dataclass(kw_only=True, slots=True, frozen=True)
class Stretch:
    """Samples start … stop-1 of one shard, by their position in the tar."""

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def take_fraction(shards: list[Shard], fraction: float, seed: int) -> list[Stretch]:
    """round(fraction * N) samples, at least one: whole shards in seeded order, the last one in part."""
    left = max(1, round(fraction * sum(shard.samples for shard in shards)))
    order = np.random.default_rng((seed, 0x5B5E7)).permutation(len(shards))
    taken = []
    for number in order:
        count = min(left, shards[number].samples)
        if count:
            taken.append(Stretch(path=shards[number].path, start=0, stop=count))
            left -= count
    return taken


def deal(subset: list[Stretch], streams: int, seed: int, epoch: int) -> list[list[Stretch]]:
    """The stretches of every stream in this epoch; each stream holds total // streams samples."""
    order = np.random.default_rng((seed, epoch, 0xEB0C4)).permutation(len(subset))
    per_stream = sum(len(stretch) for stretch in subset) // streams
    dealt: list[list[Stretch]] = [[] for _ in range(streams)]
    stream, room = 0, per_stream
    for number in order:
        path, start, stop = subset[number].path, subset[number].start, subset[number].stop
        while start < stop and stream < streams:
            count = min(room, stop - start)
            if count:
                dealt[stream].append(Stretch(path=path, start=start, stop=start + count))
            start, room = start + count, room - count
            if room == 0:
                stream, room = stream + 1, per_stream
    return dealt


def steps_per_epoch(subset: list[Stretch], streams: int, batch_size: int) -> int:
    """Whole global batches in an epoch; what does not fill one is left to another epoch's order."""
    return sum(len(stretch) for stretch in subset) // streams // (batch_size // streams)
