"""From samples to batches: how bytes become rows. Pictures here, features of a frozen encoder in `feature_shards`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from geoclip.data.augment import (
    NO_COLOR,
    Augmentation,
    augmentation_rng,
    color_draw,
    training_pixels_of,
)
from geoclip.data.batch import Batch, Sample, Skip
from geoclip.data.preprocessing import Preprocessing, evaluation_pixels_of
from geoclip.data.workers import note

Color = NDArray[np.float32] | None


class Decoder(Protocol):
    """How a stream turns bytes into rows: a function of the sample and its epoch alone."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""

    @property
    def dtype(self) -> DTypeLike:
        """Of its numbers."""

    @property
    def no_color(self) -> Color:
        """The colour draw that changes nothing; None where no row comes with one."""

    def __call__(self, sample: Sample) -> tuple[NDArray[Any], Color]:
        """A row, and its colour draw.

        Raises:
            ValueError: broken; the message is a short reason to count by.
        """


@dataclass(kw_only=True, slots=True, frozen=True)
class PictureDecoder:
    """Pixels uint8, augmented by (seed, epoch, key); without augmentation, what evaluation sees.

    With several `views` of each picture in a step a row has all of them, (P, 3, size, size), each augmented anew.
    """

    dtype: ClassVar[DTypeLike] = np.uint8
    preprocessing: Preprocessing
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    views: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.preprocessing.shape if self.views == 1 else (self.views, *self.preprocessing.shape)

    @property
    def no_color(self) -> Color:
        """The draw that changes nothing, where colours change at all: they do on the device."""
        if not self.augmentation.changes_color:
            return None
        return NO_COLOR if self.views == 1 else np.tile(NO_COLOR, (self.views, 1))

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], Color]:
        """Pixels, and the colour draw where colours change."""
        if self.augmentation.is_identity:
            return evaluation_pixels_of(sample.data, self.preprocessing), None
        if self.views == 1:
            return self.view(sample, sample.epoch)
        seen = [self.view(sample, sample.epoch * self.views + view) for view in range(self.views)]
        colors = [color for _, color in seen if color is not None]
        return np.stack([pixels for pixels, _ in seen]), np.stack(colors) if colors else None

    def view(self, sample: Sample, number: int) -> tuple[NDArray[np.uint8], Color]:
        """One of the views that training sees of a picture, counted through all epochs."""
        rng = augmentation_rng(self.seed, number, sample.key)
        pixels = training_pixels_of(sample.data, self.preprocessing, self.augmentation, rng)
        return pixels, color_draw(self.augmentation, rng) if self.augmentation.changes_color else None


def decode_batch(samples: list[Sample], decoder: Decoder, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch of these samples; a broken one keeps its row, empty and not present."""
    images = np.zeros((len(samples), *decoder.shape), dtype=decoder.dtype)
    present = np.ones(len(samples), dtype=np.bool_)
    colors, skipped = [], []
    for row, sample in enumerate(samples):
        note(sample.shard, sample.key)
        try:
            images[row], color = decoder(sample)
        except ValueError as error:
            present[row], color = False, decoder.no_color
            skipped.append(Skip(shard=sample.shard, key=sample.key, reason=str(error)))
        if color is not None:
            colors.append(color)
    return Batch(
        images=torch.from_numpy(images),
        gps_deg_B2=torch.tensor([sample.gps_deg for sample in samples], dtype=dtype),
        keys=[sample.key for sample in samples],
        present_B=torch.from_numpy(present),
        color_BK=torch.from_numpy(np.stack(colors)) if colors else None,
        skipped=skipped,
    )


def only_present(batch: Batch) -> Batch:
    """The rows that could be read."""
    assert batch.present_B is not None
    rows = batch.present_B.nonzero()[:, 0]
    return Batch(
        images=batch.images[rows],
        gps_deg_B2=batch.gps_deg_B2[rows],
        keys=[batch.keys[row] for row in rows.tolist()],
        color_BK=None if batch.color_BK is None else batch.color_BK[rows],
        skipped=batch.skipped,
    )
