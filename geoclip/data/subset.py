"""Which samples an epoch reads, and in which stream: pure functions of (shards, fraction, seed, epoch).

The subset of a fraction is a prefix of the shards in an order that depends on the seed alone, the last of them in
part: subsets are nested, and nothing outside is read. An epoch permutes those shards and cuts their concatenation
into ranges, one set per stream, equally long to within one sample, whatever the number of shards.
"""

from __future__ import annotations

import numpy as np

from geoclip.data.shard_index import SampleRange
from geoclip.data.shard_list import Shard


def all_samples(shards: list[Shard], limit: int | None = None) -> list[SampleRange]:
    """All samples of these shards in order, or the first `limit`."""
    left = sum(shard.samples for shard in shards) if limit is None else limit
    ranges = []
    for shard in shards:
        ranges.append(SampleRange(path=shard.path, start=0, stop=min(shard.samples, left)))
        left -= len(ranges[-1])
    return [span for span in ranges if len(span)]


def take_fraction(shards: list[Shard], fraction: float, seed: int) -> list[SampleRange]:
    """round(fraction * N) samples, at least one: whole shards in seeded order, the last one in part."""
    left = max(1, round(fraction * sum(shard.samples for shard in shards)))
    order = np.random.default_rng((seed, 0x5B5E7)).permutation(len(shards))
    taken = []
    for number in order:
        count = min(left, shards[number].samples)
        if count:
            taken.append(SampleRange(path=shards[number].path, start=0, stop=count))
            left -= count
    return taken


def stream_sizes(samples: int, streams: int) -> list[int]:
    """Samples of each stream in every epoch: all of them, equal to within one, the longer streams first."""
    return [samples // streams + (number < samples % streams) for number in range(streams)]


def assign_to_streams(subset: list[SampleRange], streams: int, seed: int, epoch: int) -> list[list[SampleRange]]:
    """The ranges of every stream in this epoch; stream i has `stream_sizes(…)[i]` samples."""
    order = np.random.default_rng((seed, epoch, 0xEB0C4)).permutation(len(subset))
    sizes = stream_sizes(sum(len(span) for span in subset), streams)
    dealt: list[list[SampleRange]] = [[] for _ in range(streams)]
    stream, room = 0, sizes[0]
    for number in order:
        path, start, stop = subset[number].path, subset[number].start, subset[number].stop
        while start < stop:
            if room == 0:
                stream, room = stream + 1, sizes[stream + 1]
                continue
            count = min(room, stop - start)
            dealt[stream].append(SampleRange(path=path, start=start, stop=start + count))
            start, room = start + count, room - count
    return dealt
