"""Samples, decoders and batches, and the account of samples: found = used + skipped by reason.

shard.tar -> Sample (a picture's bytes and its coordinates) -> Decoder -> Batch (what a rank trains on in one step)
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from geoclip.data.transforms import (
    NO_COLOR,
    Augmentation,
    Preprocessing,
    augmentation_rng,
    color_draw,
    evaluation_pixels_of,
    training_pixels_of,
)
from geoclip.data.workers import note

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Record = TypeVar("Record", bound="DataclassInstance")
Color = NDArray[np.float32] | None


def copied_to(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, copied asynchronously; to a GPU from page-locked memory."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def named_tensors(record: DataclassInstance) -> dict[str, Tensor]:
    """The fields of a dataclass that are tensors, by name."""
    values = {one.name: getattr(record, one.name) for one in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def with_tensors(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A copy of the dataclass with `change` applied to every tensor field."""
    return replace(record, **{name: change(tensor) for name, tensor in named_tensors(record).items()})


@dataclass(kw_only=True, slots=True, frozen=True)
class Skip:
    """A sample or shard that cannot be used, and why."""

    shard: str
    key: str
    reason: str
    samples: int = 1  # 0: an empty shard


@dataclass(kw_only=True, slots=True, frozen=True)
class Sample:
    """The bytes of one picture, or of its features, and its coordinates."""

    shard: str
    key: str
    data: bytes
    gps_deg: tuple[float, float]  # latitude, longitude
    epoch: int = 0


@dataclass(kw_only=True, slots=True)
class Batch:
    """The rows of one step."""

    images: Tensor  # (B, 3, H, W) uint8 pixels, or (B, F) features of a frozen backbone
    gps_deg_B2: Tensor  # latitude, longitude in degrees; float32 in training, float64 in evaluation
    keys: Sequence[str]
    present_B: Tensor | None = None  # training: False where the picture is corrupt; its coordinates remain a negative
    color_BK: Tensor | None = None  # training: the random numbers of the colour augmentation, see `color_draw`
    skipped: list[Skip] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same rows on a device, copied asynchronously."""
        return with_tensors(self, partial(copied_to, device=device))

    def select(self, rows_R: Tensor) -> Batch:
        """These rows, by number, with all of `skipped`."""
        chosen = with_tensors(self, lambda tensor: tensor[rows_R])
        return replace(chosen, keys=[self.keys[row] for row in rows_R.tolist()])

    @classmethod
    def cat(cls, batches: Sequence[Batch]) -> Batch:
        """The rows of all these batches, in order."""
        if len(batches) == 1:
            return batches[0]
        parts = [named_tensors(batch) for batch in batches]
        names = {name for part in parts for name in part}
        return cls(
            keys=[key for batch in batches for key in batch.keys],
            skipped=[skip for batch in batches for skip in batch.skipped],
            **{name: torch.cat([part[name] for part in parts if name in part]) for name in names},
        )


@dataclass(kw_only=True, slots=True)
class SkipReport:
    """Counts by reason over a run, and the first samples of each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    shards: Counter[str] = field(default_factory=Counter)
    shown_per_reason: int = 5

    def add(self, skipped: Iterable[Skip]) -> None:
        """Count these skips."""
        for skip in skipped:
            self.counts[skip.reason] += skip.samples
            self.shards[skip.shard] += skip.samples
            shown = self.examples.setdefault(skip.reason, [])
            if len(shown) <= self.shown_per_reason:  # one more than is shown, to know that there are more
                shown.append(f"{skip.shard}:{skip.key}" if skip.key else skip.shard)

    def merge(self, other: SkipReport) -> None:
        """Add the counts of another rank."""
        self.counts.update(other.counts)
        self.shards.update(other.shards)
        for reason, shown in other.examples.items():
            own = self.examples.setdefault(reason, [])
            own += shown[: self.shown_per_reason + 1 - len(own)]

    def worst_shards(self, count: int = 3) -> str:
        """The shards with the most skips, as `name (count)`."""
        return ", ".join(f"{shard} ({bad})" for shard, bad in self.shards.most_common(count))

    def lines(self) -> list[str]:
        """One line per reason."""
        lines = []
        for reason, count in self.counts.most_common():
            shown, most = self.examples[reason], self.shown_per_reason
            more = " …" if max(count, len(shown)) > most else ""
            lines.append(f"{count} × {reason}: {', '.join(shown[:most])}{more}")
        return lines


class Decoder(Protocol):
    """Turns the bytes of a sample into a row; depends on nothing but the sample and its epoch."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def dtype(self) -> DTypeLike:
        """Type of its numbers."""

    @property
    def no_color(self) -> Color:
        """The colour draw that changes nothing; None if rows have no colour draw."""

    def __call__(self, sample: Sample) -> tuple[NDArray[Any], Color]:
        """A row, and its colour draw. Raises ValueError: corrupt; the message is a short reason for the counts."""


@dataclass(kw_only=True, slots=True, frozen=True)
class PictureDecoder:
    """Pixels uint8, augmented by (seed, epoch, key); without augmentation those of evaluation.

    With several `views` of each picture in a step a row is (P, 3, size, size), each view augmented independently.
    """

    dtype: ClassVar[DTypeLike] = np.uint8
    preprocessing: Preprocessing
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    views: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.preprocessing.shape if self.views == 1 else (self.views, *self.preprocessing.shape)

    @property
    def no_color(self) -> Color:
        """The draw that changes nothing; None if colours never change. The draws are applied on the device."""
        if not self.augmentation.changes_color:
            return None
        return NO_COLOR if self.views == 1 else np.tile(NO_COLOR, (self.views, 1))

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], Color]:
        """Pixels, and the colour draw if colours change."""
        if self.augmentation.is_identity:
            return evaluation_pixels_of(sample.data, self.preprocessing), None
        if self.views == 1:
            return self.view(sample, sample.epoch)
        views = [self.view(sample, sample.epoch * self.views + view) for view in range(self.views)]
        colors = [color for _, color in views if color is not None]
        return np.stack([pixels for pixels, _ in views]), np.stack(colors) if colors else None

    def view(self, sample: Sample, number: int) -> tuple[NDArray[np.uint8], Color]:
        """One augmented view of a picture; `number` counts through all epochs."""
        rng = augmentation_rng(self.seed, number, sample.key)
        pixels = training_pixels_of(sample.data, self.preprocessing, self.augmentation, rng)
        return pixels, color_draw(self.augmentation, rng) if self.augmentation.changes_color else None


def decode_batch(samples: list[Sample], decoder: Decoder, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch of these samples; a corrupt one keeps its row, with zeros and `present_B` False."""
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
    return replace(batch.select(batch.present_B.nonzero()[:, 0]), present_B=None)


log = logging.getLogger("geoclip")


@dataclass(kw_only=True, slots=True)
class Account:
    """How many items were found in one source, used, and skipped."""

    what: str  # the source: a key and its value, a folder or a file
    used: int
    skipped: SkipReport = field(default_factory=SkipReport)
    unit: str = "samples"

    @property
    def found(self) -> int:
        """Used and skipped together."""
        return self.used + self.skipped.counts.total()

    @property
    def skipped_share(self) -> float:
        """Share of what was found; 1 if nothing was found."""
        return 1 - self.used / self.found if self.found else 1.0

    def lines(self) -> list[str]:
        """The total, then one line per reason with its first examples; empty if nothing was skipped."""
        if not self.skipped.counts:
            return []
        bad = self.skipped.counts.total()
        total = f"{self.what}: {self.found:,} {self.unit} found = {self.used:,} used + {bad:,} skipped"
        return [total, *(f"  {line}" for line in self.skipped.lines())]

    def log(self) -> None:
        """Log `lines` as warnings."""
        for line in self.lines():
            log.warning("%s", line)


def account_of(what: str, used: int, skipped: list[Skip], unit: str = "samples") -> Account:
    """An account of a list of skips."""
    report = SkipReport()
    report.add(skipped)
    return Account(what=what, used=used, skipped=report, unit=unit)
