"""From a sample's bytes to a row of a batch: pictures here, features of a frozen encoder beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geoclip.data.augment import (
    NO_COLOR,
    Augmentation,
    augmentation_rng,
    color_draw,
    evaluation_pixels_of,
    training_pixels_of,
)
from geoclip.data.batch import Sample


class Decoder(Protocol):
    """How a stream turns bytes into rows. A function of the sample and its epoch alone."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""

    @property
    def dtype(self) -> DTypeLike:
        """Of its numbers."""

    @property
    def no_color(self) -> NDArray[np.float32] | None:
        """The colour draw that changes nothing; None where no row comes with one."""

    def __call__(self, sample: Sample) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
        """A row, and its colour draw.

        Raises:
            ValueError: broken; the message is a short reason to count by.
        """


@dataclass(kw_only=True, slots=True, frozen=True)
class PictureDecoder:
    """Pixels (3, size, size) uint8, augmented by (seed, epoch, key); without augmentation, what evaluation sees."""

    image_px: int
    augmentation: Augmentation = Augmentation()  # noqa: RUF009 -- frozen
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (3, self.image_px, self.image_px)

    @property
    def dtype(self) -> DTypeLike:
        """Of its numbers."""
        return np.uint8

    @property
    def no_color(self) -> NDArray[np.float32] | None:
        """The draw that changes nothing, where colours change at all: they do on the device."""
        return NO_COLOR if self.augmentation.changes_color else None

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Pixels, and the colour draw where colours change."""
        if self.augmentation.is_identity:
            return evaluation_pixels_of(sample.data, self.image_px), None
        rng = augmentation_rng(self.seed, sample.epoch, sample.key)
        pixels = training_pixels_of(sample.data, self.image_px, self.augmentation, rng)
        return pixels, color_draw(self.augmentation, rng) if self.augmentation.changes_color else None
