"""The training stream.

shards ─ take_fraction, deal ─▶ canonical streams ─ shuffle buffer ─ decode, augment ─▶ Batch

A global batch holds the same number of samples from each of a fixed number of canonical streams, in the streams'
order. Ranks own consecutive streams, and so do the workers of a rank, so that the global batch at step t is a
function of (shards, fraction, seed, streams, batch size) and of neither ranks nor workers. The position in the data
is one number: the step.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.filters import shuffle

from geoclip.data.augment import Augmentation, augmentation_rng, evaluation_pixels, training_pixels
from geoclip.data.batch import Batch, Example, Skip
from geoclip.data.reading import RawSample, read_example, read_examples, read_stretch
from geoclip.data.subset import Stretch, deal, steps_per_epoch
from geoclip.errors import DataError


@dataclass(kw_only=True, slots=True, frozen=True)
class StreamPlan:
    """Everything that decides which sample stands where."""

    subset: list[Stretch]
    streams: int
    batch_size: int  # global
    shuffle_buffer: int
    seed: int
    image_px: int
    augmentation: Augmentation

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return steps_per_epoch(self.subset, self.streams, self.batch_size)


class TrainStream(IterableDataset[Batch]):
    """This worker's part of every global batch from step `first_step` up to `last_step`."""

    def __init__(
        self, plan: StreamPlan, *, rank: int, world_size: int, first_step: int, last_step: int
    ) -> None:
        self.plan = plan
        self.first_step, self.last_step = first_step, last_step
        self.mine = np.array_split(np.arange(plan.streams), world_size)[rank]

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        streams = self.mine if worker is None else np.array_split(self.mine, worker.num_workers)[worker.id]
        step = self.first_step
        while step < self.last_step:
            epoch, inside = divmod(step, self.plan.steps_per_epoch)
            for batch in islice(self._epoch(streams, epoch, inside), self.last_step - step):
                yield batch
                step += 1

    def _epoch(self, streams: np.ndarray, epoch: int, first: int) -> Iterator[Batch]:
        plan = self.plan
        share = plan.batch_size // plan.streams
        dealt = deal(plan.subset, plan.streams, plan.seed, epoch)
        skipped: list[Skip] = []
        sources = [_shuffled(dealt[number], plan, epoch, int(number), skipped) for number in streams]
        for source in sources:  # skipping to a step passes samples by undecoded
            next(islice(source, first * share, first * share), None)
        pixels = functools.partial(_augmented, augmentation=plan.augmentation, seed=plan.seed, epoch=epoch)
        for _ in range(first, plan.steps_per_epoch):
            examples: list[Example] = []
            for source in sources:
                examples += _filled(list(islice(source, share)), share, pixels, plan.image_px, skipped)
            yield _stack(examples, epoch, skipped)
            skipped.clear()


def train_batches(
    plan: StreamPlan, *, rank: int, world_size: int, workers: int, first_step: int, last_step: int
) -> Iterator[Batch]:
    """This rank's batches from step `first_step` to `last_step`, read by `workers` processes.

    Raises:
        DataError: fewer samples than one global batch, or a stream without one readable sample.
    """
    if plan.steps_per_epoch < 1:
        total = sum(len(stretch) for stretch in plan.subset)
        raise DataError(
            f"{total} training samples over {plan.streams} streams are fewer than one batch of {plan.batch_size}; "
            "lower optim.batch_size or raise data.fraction"
        )
    stream = TrainStream(plan, rank=rank, world_size=world_size, first_step=first_step, last_step=last_step)
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        pin_memory=False,
    )
    parts = iter(loader)
    for _ in range(first_step, last_step):
        yield _join([next(parts) for _ in range(max(1, workers))])


def evaluation_batches(stretches: list[Stretch], image_px: int, batch_size: int) -> Iterator[Batch]:
    """Every readable example in order, in batches with the evaluation transform; the last one may be smaller."""
    skipped: list[Skip] = []
    examples = read_examples(stretches, image_px, skipped)
    while chunk := list(islice(examples, batch_size)):
        yield _stack(chunk, 0, skipped, torch.float64)
        skipped.clear()
    if skipped:  # damage behind the last readable example
        empty = torch.empty((0, 3, image_px, image_px), dtype=torch.uint8)
        yield Batch(
            pixels_BCHW=empty,
            gps_deg_B2=torch.empty((0, 2), dtype=torch.float64),
            keys=[],
            skipped=list(skipped),
        )


def _shuffled(
    stretches: list[Stretch], plan: StreamPlan, epoch: int, number: int, skipped: list[Skip]
) -> Iterator[RawSample]:
    """A stream's undecoded samples in this epoch's order; read again from the start where damage left it short."""
    wanted = sum(len(stretch) for stretch in stretches)
    rng = random.Random(f"{plan.seed}/{epoch}/{number}")
    given = 0
    while given < wanted:
        before = given
        in_order = (sample for stretch in stretches for sample in read_stretch(stretch, skipped))
        for sample in shuffle(plan.shuffle_buffer, initial=min(100, plan.shuffle_buffer), rng=rng)(in_order):
            yield sample
            given += 1
            if given == wanted:
                return
        if given == before:
            names = sorted({stretch.path for stretch in stretches})
            raise DataError(f"no readable sample in {', '.join(names)}; rebuild or remove these shards")


def _filled(
    samples: list[RawSample],
    share: int,
    pixels: functools.partial[np.ndarray],
    image_px: int,
    skipped: list[Skip],
) -> list[Example]:
    """`share` examples: in the place of a broken one, a good one of the same stream stands again.

    Every rank's batch keeps its size, so that no rank ever waits for another. A repeated place is no negative
    of itself (`contrastive.same_place`).
    """
    good = [ex for sample in samples if (ex := read_example(sample, pixels, image_px, skipped)) is not None]
    if not good:
        shards = sorted({str(sample["__url__"]) for sample in samples})
        raise DataError(f"not one of {len(samples)} consecutive samples can be read in {', '.join(shards)}")
    return [good[number % len(good)] for number in range(share)]


def _augmented(
    image: Image.Image, size_px: int, key: str, *, augmentation: Augmentation, seed: int, epoch: int
) -> np.ndarray:
    if augmentation.is_identity:
        return evaluation_pixels(image, size_px)
    return training_pixels(image, size_px, augmentation, augmentation_rng(seed, epoch, key))


def _stack(
    examples: list[Example], epoch: int, skipped: list[Skip], dtype: torch.dtype = torch.float32
) -> Batch:
    return Batch(
        pixels_BCHW=torch.from_numpy(np.stack([example.pixels_CHW for example in examples])),
        gps_deg_B2=torch.tensor([example.gps_deg for example in examples], dtype=dtype),
        keys=[example.key for example in examples],
        epoch=epoch,
        skipped=list(skipped),
    )


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(
        pixels_BCHW=torch.cat([part.pixels_BCHW for part in parts]),
        gps_deg_B2=torch.cat([part.gps_deg_B2 for part in parts]),
        keys=[key for part in parts for key in part.keys],
        epoch=parts[0].epoch,
        skipped=[skip for part in parts for skip in part.skipped],
    )


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
