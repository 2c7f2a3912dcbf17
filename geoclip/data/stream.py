"""The training stream: the order of samples, and this rank's batches.

shards ─ take_fraction, assign_to_streams ─▶ canonical streams ─ shuffle buffer ─ decode, augment ─▶ Batch

A global batch has the same number of rows from each of a fixed number of canonical streams, in the streams' order.
A stream is endless: each epoch yields every one of its samples once. Ranks read consecutive streams, and so do the
workers of a rank, so that the global batch at step t depends on (shards, fraction, seed, streams, batch size) and not
on the number of ranks or workers. The position in the data is one number, the step: at step t every stream is at its
row t * batch_size / streams. A corrupt picture keeps its row, which the loss ignores (`Batch.present_B`).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.filters import shuffle

from geoclip.data.batch import Batch, Decoder, Sample, decode_batch, named_tensors, only_present
from geoclip.data.shard_index import OpenShard, SampleRange, read_samples
from geoclip.data.shards import assign_to_streams, stream_sizes
from geoclip.data.workers import LIMIT, TIMEOUT_S, note, read_in_processes
from geoclip.errors import DataError

T = TypeVar("T")

PREFETCH = 4  # batches that a worker reads ahead


@dataclass(kw_only=True, slots=True, frozen=True)
class StreamPlan:
    """Everything that determines the order of the samples and their decoding."""

    subset: list[SampleRange]
    streams: int
    batch_size: int  # global
    shuffle_buffer: int
    seed: int
    decoder: Decoder

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        return sum(len(span) for span in self.subset)


def rank_streams(plan: StreamPlan, rank: int, world_size: int) -> NDArray[np.int64]:
    """The numbers of a rank's canonical streams."""
    return np.array_split(np.arange(plan.streams), world_size)[rank]


def worker_streams(streams: NDArray[np.int64]) -> NDArray[np.int64]:
    """This worker's part of a rank's streams; all of them outside of a worker."""
    worker = get_worker_info()
    return streams if worker is None else np.array_split(streams, worker.num_workers)[worker.id]


class RankStreams(IterableDataset[T]):
    """This worker's part of every global batch from step `first_step` up to `last_step`."""

    def __init__(self, plan: StreamPlan, *, rank: int, world_size: int, first_step: int, last_step: int) -> None:
        self.plan = plan
        self.first_step, self.last_step = first_step, last_step
        self.streams = rank_streams(plan, rank, world_size)

    def read(self, count: int, workers: int, timeout_s: float) -> Generator[list[T], None, None]:
        """`count` items, each as the list of the workers' parts of it, in the workers' order."""
        processes = max(1, workers)
        parts = read_in_processes(
            self, count=count * processes, workers=workers, timeout_s=timeout_s, limited_by=LIMIT, prefetch=PREFETCH
        )
        with contextlib.closing(parts):
            for _ in range(count):
                yield list(islice(parts, processes))


class TrainStream(RankStreams[Batch]):
    """As `RankStreams`, with decoded samples."""

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
        DataError: fewer samples than one global batch; or a reader failed, was killed, or read nothing for `timeout_s`.
    """
    if plan.samples < plan.batch_size:
        raise DataError(
            f"{plan.samples} training samples are fewer than one batch of {plan.batch_size}; "
            "lower optim.batch_size or raise data.fraction"
        )
    stream = TrainStream(plan, rank=rank, world_size=world_size, first_step=first_step, last_step=last_step)
    with contextlib.closing(stream.read(last_step - first_step, workers, timeout_s)) as steps:
        for parts in steps:
            yield Batch.cat(parts)


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`. To a GPU, each is copied on a separate CUDA stream during the step before it."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copying = torch.cuda.Stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            moved = batch.to(device)
        copied = copying.record_event()
        if ahead is not None:
            yield _usable(*ahead)
        ahead = moved, copied
    if ahead is not None:
        yield _usable(*ahead)


def _usable(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """The batch; the current CUDA stream, not the host, waits for its copy."""
    stream = torch.cuda.current_stream(batch.images.device)
    stream.wait_event(copied)
    for tensor in named_tensors(batch).values():
        tensor.record_stream(stream)  # its memory is not reused while the step reads it
    return batch


def evaluation_batches(ranges: list[SampleRange], decoder: Decoder, batch_size: int) -> Iterator[Batch]:
    """Every readable sample in order, with float64 coordinates; corrupt ones are omitted and listed in `skipped`."""
    samples = read_samples(ranges)
    while chunk := list(islice(samples, batch_size)):
        yield only_present(decode_batch(chunk, decoder, torch.float64))


def epochs_from(plan: StreamPlan, number: int, position: int) -> Iterator[tuple[int, int]]:
    """(epoch, samples to skip in it) of a stream, from the epoch of `position` on, endless."""
    epoch, skip = divmod(position, stream_sizes(plan.samples, plan.streams)[number])
    while True:
        yield epoch, skip
        epoch, skip = epoch + 1, 0


def _stream(plan: StreamPlan, number: int, position: int) -> Iterator[Sample]:
    """Stream `number` from sample `position` on, endless; earlier samples are not read."""
    for epoch, skip in epochs_from(plan, number, position):
        yield from _epoch(plan, number, epoch, skip)


def _epoch(plan: StreamPlan, number: int, epoch: int, skip: int) -> Iterator[Sample]:
    """A stream's samples in this epoch's order, without the first `skip`.

    Samples are read when they enter the shuffle buffer, so that the disk is read in order. While samples are skipped,
    only their positions enter the buffer; a position that is still in it afterwards is read when it leaves.
    """
    rng = random.Random(f"{plan.seed}/{epoch}/{number}")
    left = skip

    def entering() -> Iterator[Sample | tuple[str, int]]:
        for span in assign_to_streams(plan.subset, plan.streams, plan.seed, epoch)[number]:
            shard = None
            for position in range(span.start, span.stop):
                if left > 0:
                    yield span.path, position
                else:
                    note(span.path, position)
                    shard = shard or OpenShard(span.path)
                    yield shard.read(position, epoch)

    reopened_shards: dict[str, OpenShard] = {}
    buffer = plan.shuffle_buffer
    for entry in shuffle(buffer, initial=min(100, buffer), rng=rng)(entering()):
        if left > 0:
            left -= 1
        elif isinstance(entry, Sample):
            yield entry
        else:
            path, position = entry
            note(path, position)
            if path not in reopened_shards:
                reopened_shards[path] = OpenShard(path)
            yield reopened_shards[path].read(position, epoch)


def epoch_positions(plan: StreamPlan, number: int, epoch: int, skip: int) -> Iterator[tuple[str, int]]:
    """The order of `_epoch` as (path, position in the shard); no shard is read."""
    entering = (
        (span.path, position)
        for span in assign_to_streams(plan.subset, plan.streams, plan.seed, epoch)[number]
        for position in range(span.start, span.stop)
    )
    rng, buffer = random.Random(f"{plan.seed}/{epoch}/{number}"), plan.shuffle_buffer
    return islice(shuffle(buffer, initial=min(100, buffer), rng=rng)(entering), skip, None)
