"""What the stream carries.

shard.tar -> Example (one decoded picture and its place) -> Batch (what a rank trains on in one step)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(kw_only=True, slots=True, frozen=True)
class Skip:
    """A sample or shard that could not be used."""

    shard: str
    key: str
    reason: str


@dataclass(kw_only=True, slots=True)
class Example:
    """One picture, ready for the encoder, and where it was taken."""

    key: str
    pixels_CHW: NDArray[np.uint8]
    gps_deg: tuple[float, float]  # latitude, longitude


@dataclass(kw_only=True, slots=True)
class Batch:
    """The rows of one step. `skipped` tells what fell out since the batch before."""

    pixels_BCHW: Tensor  # uint8
    gps_deg_B2: Tensor  # latitude, longitude in degrees; float32 in training, float64 in evaluation
    keys: list[str]
    epoch: int = 0
    skipped: list[Skip] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class SkipReport:
    """Counts by reason over a run, and the first samples of each reason by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    shown_per_reason: int = 5

    def add(self, skipped: Iterable[Skip]) -> None:
        """Take up what a batch brought."""
        for skip in skipped:
            self.counts[skip.reason] += 1
            shown = self.examples.setdefault(skip.reason, [])
            if len(shown) < self.shown_per_reason:
                shown.append(f"{skip.shard}:{skip.key}" if skip.key else skip.shard)

    def lines(self) -> list[str]:
        """One sentence per reason."""
        return [
            f"{count} × {reason}: {', '.join(self.examples[reason])}{' …' if count > self.shown_per_reason else ''}"
            for reason, count in self.counts.most_common()
        ]
