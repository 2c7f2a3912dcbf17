"""The training stream.

shards ─ take_fraction, deal ─▶ canonical streams ─ shuffle buffer ─ decode, augment ─▶ Batch

A global batch holds the same number of rows from each of a fixed number of canonical streams, in the streams' order.
A stream has no end: epoch follows epoch, each showing every one of its samples once. Ranks own consecutive streams,
and so do the workers of a rank, so that the global batch at step t is a function of (shards, fraction, seed, streams,
batch size) and of neither ranks nor workers. The position in the data is one number, the step: at step t every stream
stands at its row t * batch_size / streams, whatever was broken on the way, because a broken picture keeps its row and
the loss leaves that row out (`Batch.present_B`).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.filters import shuffle

from geoclip.data.batch import Batch, Sample
from geoclip.data.decoding import Decoder, decode_batch, only_present
from geoclip.data.reading import OpenShard, read_samples
from geoclip.data.subset import Stretch, deal, stream_sizes
from geoclip.data.workers import LIMIT, TIMEOUT_S, note, read_in_processes
from geoclip.errors import DataError

PREFETCH = 4  # batches that a worker reads ahead


@dataclass(kw_only=True, slots=True, frozen=True)
class StreamPlan:
    """Everything that decides which sample stands where, and what is made of it."""

    subset: list[Stretch]
    streams: int
    batch_size: int  # global
    shuffle_buffer: int
    seed: int
    decoder: Decoder

    @property
    def samples(self) -> int:
        """In an epoch."""
        return sum(len(stretch) for stretch in self.subset)


def rank_streams(plan: StreamPlan, rank: int, world_size: int) -> NDArray[np.int64]:
    """The numbers of the canonical streams that a rank reads."""
    return np.array_split(np.arange(plan.streams), world_size)[rank]


def worker_streams(streams: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of a rank's streams that this worker reads; all of them outside a worker."""
    worker = get_worker_info()
    return streams if worker is None else np.array_split(streams, worker.num_workers)[worker.id]


class TrainStream(IterableDataset[Batch]):
    """This worker's part of every global batch from step `first_step` up to `last_step`."""

    def __init__(
        self, plan: StreamPlan, *, rank: int, world_size: int, first_step: int, last_step: int
    ) -> None:
        self.plan = plan
        self.first_step, self.last_step = first_step, last_step
        self.streams = rank_streams(plan, rank, world_size)

    def __iter__(self) -> Iterator[Batch]:
        numbers = worker_streams(self.streams)
        share = self.plan.batch_size // self.plan.streams
        streams = [_stream(self.plan, int(number), self.first_step * share) for number in numbers]
        for _ in range(self.first_step, self.last_step):
            samples = [sample for stream in streams for sample in islice(stream, share)]
            yield decode_batch(samples, self.plan.decoder)


def train_batches(
    plan: StreamPlan,
    *,
    rank: int,
    world_size: int,
    workers: int,
    first_step: int,
    last_step: int,
    timeout_s: float = TIMEOUT_S,
) -> Generator[Batch, None, None]:
    """This rank's batches from step `first_step` to `last_step`, read by `workers` processes.

    Raises:
        DataError: fewer samples than one global batch; or a reader failed, was killed, or stood still for `timeout_s`.
    """
    if plan.samples < plan.batch_size:
        raise DataError(
            f"{plan.samples} training samples are fewer than one batch of {plan.batch_size}; "
            "lower optim.batch_size or raise data.fraction"
        )
    stream = TrainStream(plan, rank=rank, world_size=world_size, first_step=first_step, last_step=last_step)
    steps, shares = last_step - first_step, max(1, workers)
    parts = read_in_processes(
        stream,
        count=steps * shares,
        workers=workers,
        timeout_s=timeout_s,
        limited_by=LIMIT,
        prefetch=PREFETCH,
    )
    with contextlib.closing(parts):
        for _ in range(steps):
            yield _join(list(islice(parts, shares)))


def evaluation_batches(stretches: list[Stretch], decoder: Decoder, batch_size: int) -> Iterator[Batch]:
    """Every readable sample in order, in batches with float64 coordinates; a broken one is left out and named."""
    samples = read_samples(stretches)
    while chunk := list(islice(samples, batch_size)):
        yield only_present(decode_batch(chunk, decoder, torch.float64))


def _stream(plan: StreamPlan, number: int, position: int) -> Iterator[Sample]:
    """Stream `number` from a position on, for ever; what lies before the position is not read."""
    size = stream_sizes(plan.samples, plan.streams)[number]
    epoch, skip = divmod(position, size)
    while True:
        yield from _epoch(plan, number, epoch, skip)
        epoch, skip = epoch + 1, 0


def _epoch(plan: StreamPlan, number: int, epoch: int, skip: int) -> Iterator[Sample]:
    """A stream's samples in this epoch's order, without the first `skip`.

    What is shuffled are samples, read as they enter the buffer, so that the disk is read in order; while samples are
    skipped it is their positions, and those still in the buffer at the end are read as they leave it.
    """
    rng = random.Random(f"{plan.seed}/{epoch}/{number}")
    left = skip

    def entering() -> Iterator[Sample | tuple[str, int]]:
        for stretch in deal(plan.subset, plan.streams, plan.seed, epoch)[number]:
            shard = None
            for position in range(stretch.start, stretch.stop):
                if left > 0:
                    yield stretch.path, position
                else:
                    note(stretch.path, position)
                    shard = shard or OpenShard(stretch.path)
                    yield shard.read(position, epoch)

    late: dict[str, OpenShard] = {}
    buffer = plan.shuffle_buffer
    for entry in shuffle(buffer, initial=min(100, buffer), rng=rng)(entering()):
        if left > 0:
            left -= 1
        elif isinstance(entry, Sample):
            yield entry
        else:
            path, position = entry
            note(path, position)
            if path not in late:
                late[path] = OpenShard(path)
            yield late[path].read(position, epoch)


def epoch_positions(plan: StreamPlan, number: int, epoch: int, skip: int) -> Iterator[tuple[str, int]]:
    """A stream's samples in this epoch's order, without the first `skip`, as shard and position: nothing is read."""
    entering = (
        (stretch.path, position)
        for stretch in deal(plan.subset, plan.streams, plan.seed, epoch)[number]
        for position in range(stretch.start, stretch.stop)
    )
    rng, buffer = random.Random(f"{plan.seed}/{epoch}/{number}"), plan.shuffle_buffer
    return islice(shuffle(buffer, initial=min(100, buffer), rng=rng)(entering), skip, None)


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    colors = [part.color_BK for part in parts if part.color_BK is not None]
    return Batch(
        images=torch.cat([part.images for part in parts]),
        gps_deg_B2=torch.cat([part.gps_deg_B2 for part in parts]),
        keys=[key for part in parts for key in part.keys],
        present_B=torch.cat([part.present_B for part in parts if part.present_B is not None]),
        color_BK=torch.cat(colors) if colors else None,
        skipped=[skip for part in parts for skip in part.skipped],
    )
