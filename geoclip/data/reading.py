"""Samples out of tar shards by their position, and nothing that is broken."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoclip.data.batch import Sample
from geoclip.data.shard_index import open_index
from geoclip.data.subset import Stretch
from geoclip.data.workers import note
from geoclip.errors import DataError
from geoclip.files import open_plain


class OpenShard:
    """A tar and its index; the file stays open as long as somebody holds this."""

    def __init__(self, path: str) -> None:
        self.index = open_index(path)
        self.name = os.path.basename(path)
        self._file = open_plain(path)
        weakref.finalize(self, os.close, self._file)

    def read(self, position: int, epoch: int = 0) -> Sample:
        """The sample at a position, its bytes by one read.

        Raises:
            DataError: the tar holds fewer samples than when the run started.
        """
        index = self.index
        if position >= len(index):
            raise DataError(
                f"{index.path} holds {len(index)} samples, but held more when this run started: it was changed "
                "meanwhile; bring it back, or start the command again"
            )
        note(index.path, index.keys[position])
        lat, lon = index.gps_deg_N2[position].tolist()
        return Sample(
            shard=self.name,
            key=index.keys[position],
            data=os.pread(self._file, int(index.size_N[position]), int(index.offset_N[position])),
            gps_deg=(lat, lon),
            epoch=epoch,
        )


def read_samples(stretches: list[Stretch]) -> Iterator[Sample]:
    """Every sample of these stretches, in order."""
    for stretch in stretches:
        shard = OpenShard(stretch.path)
        for position in range(stretch.start, stretch.stop):
            yield shard.read(position)


def places_in(stretches: list[Stretch], count: int) -> NDArray[np.float64]:
    """(N, 2) degrees: coordinates of the first `count` samples of these stretches; only their indices are read."""
    parts, left = [np.empty((0, 2))], count
    for stretch in stretches:
        if left <= 0:
            break
        parts.append(open_index(stretch.path).gps_deg_N2[stretch.start : stretch.stop][:left])
        left -= len(parts[-1])
    return np.concatenate(parts)
