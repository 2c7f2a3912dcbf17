"""What the stream carries.

shard.tar -> Sample (a picture's bytes and its place) -> Batch (what a rank trains on in one step)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def copied_to(tensor: MaybeTensor, device: torch.device) -> MaybeTensor:
    """The tensor on a device; to a GPU from page-locked memory, so that the host does not wait for the copy."""
    if tensor is None or tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(kw_only=True, slots=True, frozen=True)
class Skip:
    """A sample or shard that could not be used."""

    shard: str
    key: str
    reason: str
    samples: int = 1  # 0: a shard that has none


@dataclass(kw_only=True, slots=True, frozen=True)
class Sample:
    """One picture as its file holds it, or one set of features, and where it was taken."""

    shard: str
    key: str
    data: bytes
    gps_deg: tuple[float, float]  # latitude, longitude
    epoch: int = 0


@dataclass(kw_only=True, slots=True)
class Batch:
    """The rows of one step. `skipped` tells what fell out since the batch before."""

    images: Tensor  # (B, 3, H, W) uint8 pixels, or (B, F) features of a frozen backbone
    gps_deg_B2: Tensor  # latitude, longitude in degrees; float32 in training, float64 in evaluation
    keys: Sequence[str]
    present_B: Tensor | None = (
        None  # training: False where the picture was broken; its place is a negative still
    )
    color_BK: Tensor | None = None  # training: the random numbers of the colour augmentation
    skipped: list[Skip] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same rows on a device; the host does not wait for the copies."""
        return replace(
            self,
            images=copied_to(self.images, device),
            gps_deg_B2=copied_to(self.gps_deg_B2, device),
            present_B=copied_to(self.present_B, device),
            color_BK=copied_to(self.color_BK, device),
        )

    def copy(self) -> Batch:
        """The same rows in tensors of their own."""
        return replace(
            self,
            images=self.images.clone(),
            gps_deg_B2=self.gps_deg_B2.clone(),
            present_B=None if self.present_B is None else self.present_B.clone(),
            color_BK=None if self.color_BK is None else self.color_BK.clone(),
        )

    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        found = (self.images, self.gps_deg_B2, self.present_B, self.color_BK)
        return [one for one in found if one is not None]


@dataclass(kw_only=True, slots=True)
class SkipReport:
    """Counts by reason over a run, and the first samples of each reason by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    shards: Counter[str] = field(default_factory=Counter)
    shown_per_reason: int = 5

    def add(self, skipped: Iterable[Skip]) -> None:
        """Take up what a batch brought."""
        for skip in skipped:
            self.counts[skip.reason] += skip.samples
            self.shards[skip.shard] += skip.samples
            shown = self.examples.setdefault(skip.reason, [])
            if len(shown) <= self.shown_per_reason:  # one more tells that there are more
                shown.append(f"{skip.shard}:{skip.key}" if skip.key else skip.shard)

    def merge(self, other: SkipReport) -> None:
        """Take up what another rank has counted."""
        self.counts.update(other.counts)
        self.shards.update(other.shards)
        for reason, shown in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine += shown[: self.shown_per_reason + 1 - len(mine)]

    def worst_shards(self, count: int = 3) -> str:
        """The shards with most of it, as `name (how many)`."""
        return ", ".join(f"{shard} ({bad})" for shard, bad in self.shards.most_common(count))

    def lines(self) -> list[str]:
        """One sentence per reason."""
        found = []
        for reason, count in self.counts.most_common():
            shown, most = self.examples[reason], self.shown_per_reason
            more = " …" if max(count, len(shown)) > most else ""
            found.append(f"{count} × {reason}: {', '.join(shown[:most])}{more}")
        return found
