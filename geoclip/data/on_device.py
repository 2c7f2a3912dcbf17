"""Features of a frozen encoder in the device's memory during a run.

The batches are exactly those of the stream over the same shards; the workers send row numbers instead of features.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from geoclip.data.batch import Batch, Skip, copied_to
from geoclip.data.features import FeatureDecoder
from geoclip.data.shard_index import OpenShard, SampleRange, open_index
from geoclip.data.stream import RankStreams, StreamPlan, epoch_positions, epochs_from, worker_streams
from geoclip.data.workers import TIMEOUT_S, note

STEPS_AT_ONCE = 32  # steps per message from a worker: sending one costs as much as hundreds of row numbers
SAMPLES_AT_ONCE = 4096  # samples decoded per copy to the device


@dataclass(kw_only=True, slots=True, frozen=True)
class ResidentFeatures:
    """All training samples of a run, in the order of `subset`."""

    subset: list[SampleRange]
    first_rows: list[int]  # of each range of `subset`
    views_NVF: Tensor  # float16; see `FeatureDecoder.all_views`
    gps_deg_N2: Tensor  # float32
    present_N: Tensor  # False where the features are corrupt
    faults: dict[int, Skip]  # by the rows of corrupt features

    def key(self, row: int) -> str:
        """The key of the sample in this row."""
        number = bisect_right(self.first_rows, row) - 1
        span = self.subset[number]
        return _keys_of(span.path)[span.start + row - self.first_rows[number]]


@lru_cache(maxsize=8)
def _keys_of(path: str) -> list[str]:
    return open_index(path).keys


def size_on_device(subset: list[SampleRange], decoder: FeatureDecoder) -> int:
    """Bytes that `load_features` takes for these samples."""
    return sum(len(span) for span in subset) * (2 * max(1, decoder.views) * decoder.feature_dim + 9)


def load_features(
    subset: list[SampleRange], decoder: FeatureDecoder, device: torch.device, *, progress: bool = False
) -> ResidentFeatures:
    """Read the features of all these samples of feature shards into the device's memory; `progress` shows a bar."""
    samples, views = sum(len(span) for span in subset), max(1, decoder.views)
    views_NVF = torch.empty((samples, views, decoder.feature_dim), dtype=torch.float16, device=device)
    first_rows, row = [], 0
    gps_deg_N2, present_N = np.empty((samples, 2), dtype=np.float32), np.ones(samples, dtype=np.bool_)
    faults: dict[int, Skip] = {}
    with tqdm(total=samples, desc="features to the device", unit="image", disable=not progress) as bar:
        for span in subset:
            first_rows.append(row)
            shard = OpenShard(span.path)
            for start in range(span.start, span.stop, SAMPLES_AT_ONCE):
                stop = min(start + SAMPLES_AT_ONCE, span.stop)
                block = np.zeros((stop - start, views, decoder.feature_dim), dtype=np.float16)
                for offset, position in enumerate(range(start, stop)):
                    sample = shard.read(position)
                    gps_deg_N2[row + offset] = sample.gps_deg
                    try:
                        block[offset] = decoder.all_views(sample)
                    except ValueError as error:
                        present_N[row + offset] = False
                        faults[row + offset] = Skip(shard=sample.shard, key=sample.key, reason=str(error))
                views_NVF[row : row + stop - start] = torch.from_numpy(block).to(device)
                row += stop - start
                bar.update(stop - start)
    return ResidentFeatures(
        subset=subset,
        first_rows=first_rows,
        views_NVF=views_NVF,
        gps_deg_N2=torch.from_numpy(gps_deg_N2).to(device),
        present_N=torch.from_numpy(present_N).to(device),
        faults=faults,
    )


def resident_batches(
    plan: StreamPlan,
    features: ResidentFeatures,
    *,
    rank: int,
    world_size: int,
    workers: int,
    first_step: int,
    last_step: int,
    timeout_s: float = TIMEOUT_S,
) -> Generator[Batch, None, None]:
    """The batches of `stream.train_batches` over the same plan, from resident features; raises as it does."""
    numbers = RowNumbers(plan, rank=rank, world_size=world_size, first_step=first_step, last_step=last_step)
    chunks, device = -(-(last_step - first_step) // STEPS_AT_ONCE), features.views_NVF.device
    assert isinstance(plan.decoder, FeatureDecoder)
    with contextlib.closing(numbers.read(chunks, workers, timeout_s)) as steps:
        for parts in steps:
            rows_KB2 = torch.cat(parts, dim=1)
            for host_B2, device_B2 in zip(rows_KB2, copied_to(rows_KB2, device), strict=True):
                yield _gather(features, host_B2, device_B2, plan.decoder.at_once)


def _gather(features: ResidentFeatures, host_B2: Tensor, device_B2: Tensor, at_once: int) -> Batch:
    """The batch of these (row, epoch) pairs, given on the host and on the device."""
    row_B, epoch_B = device_B2[:, 0], device_B2[:, 1]
    views = features.views_NVF.shape[1]
    view_BP = (epoch_B[:, None] * at_once + torch.arange(at_once, device=row_B.device)) % views
    flat_M = (row_B[:, None] * views + view_BP).flatten()
    images = features.views_NVF.flatten(0, 1).index_select(0, flat_M)
    rows = host_B2[:, 0].numpy()
    corrupt = rows[np.isin(rows, list(features.faults))].tolist() if features.faults else []
    return Batch(
        images=images if at_once == 1 else images.view(len(rows), at_once, -1),
        gps_deg_B2=features.gps_deg_N2.index_select(0, row_B),
        keys=RowKeys(features, rows),
        present_B=features.present_N.index_select(0, row_B),
        skipped=[features.faults[row] for row in corrupt],
    )


class RowKeys(Sequence[str]):
    """Keys of a batch, looked up when they are used, which is rare."""

    def __init__(self, features: ResidentFeatures, rows: NDArray[np.int64]) -> None:
        self._features, self._rows = features, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._features.key(int(row)) for row in self._rows[index]]
        return self._features.key(int(self._rows[index]))


class RowNumbers(RankStreams[Tensor]):
    """Rows in `ResidentFeatures` and epochs, (K, B, 2), of `STEPS_AT_ONCE` batches at a time."""

    def __iter__(self) -> Iterator[Tensor]:
        numbers = worker_streams(self.streams)
        share = self.plan.batch_size // self.plan.streams
        first_rows = accumulate(map(len, self.plan.subset), initial=0)
        first_row = {  # row of position 0 of each shard
            span.path: row - span.start for span, row in zip(self.plan.subset, first_rows, strict=False)
        }
        streams = [self._stream(int(number), self.first_step * share, first_row) for number in numbers]
        for step in range(self.first_step, self.last_step, STEPS_AT_ONCE):
            note(f"the sample order from step {step}")
            steps = min(STEPS_AT_ONCE, self.last_step - step)
            parts = [
                np.fromiter(stream, dtype=np.dtype((np.int64, 2)), count=steps * share).reshape(steps, share, 2)
                for stream in streams
            ]
            yield torch.from_numpy(np.concatenate(parts, axis=1))

    def _stream(self, number: int, position: int, first_row: dict[str, int]) -> Iterator[tuple[int, int]]:
        for epoch, skip in epochs_from(self.plan, number, position):
            for path, position_in_shard in epoch_positions(self.plan, number, epoch, skip):
                yield first_row[path] + position_in_shard, epoch
