"""Galleries larger than the released one: its places again and again, each time a few kilometres away."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.released import released_gallery
from geoclip.geo.geodesy import jitter

JITTER_M = 5_000.0  # standard deviation to north and to east
BLOCK = 1_000_000  # the first so many places are the gallery of that size


def jittered_places(count: int) -> Tensor:
    """(count, 2) degrees, float64: the released 100,000 places, then these moved by some kilometres.

    The first million and the rest are each sorted by squares of a degree, as a file of places often is; so a part of
    them is local, which the location encoder gains from.
    """
    released_G2 = released_gallery(100_000).gps_deg_G2[:count]
    generator = torch.Generator().manual_seed(0)
    copies = [released_G2]
    while sum(map(len, copies)) < count:
        copies.append(jitter(released_G2, JITTER_M, generator))
    places_G2 = torch.cat(copies)[:count]
    return torch.cat([_by_square(part) for part in (places_G2[:BLOCK], places_G2[BLOCK:])])


def _by_square(places_G2: Tensor) -> Tensor:
    square_G2 = places_G2.floor().long()
    return places_G2[(square_G2[:, 0] * 1000 + square_G2[:, 1]).argsort(stable=True)]
