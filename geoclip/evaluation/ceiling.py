"""What a gallery allows: how near it comes to the places of a test set, and which of them it holds verbatim."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from geoclip.evaluation.accuracy import Floats, nearest_place_km, percent_within, verbatim_count


@dataclass(kw_only=True, slots=True, frozen=True)
class Ceiling:
    """The best that a perfect model could reach on a test set with a gallery, and how far the gallery flatters it."""

    n: int
    ceiling_percent: dict[int, float]  # share of the test places with a place of the gallery within each distance
    median_km: float  # of the distance to the nearest place of the gallery
    verbatim_in_gallery: int  # test places whose very coordinates stand in the gallery

    def as_json(self) -> dict[str, Any]:
        """As evaluations have it: distances as text."""
        return asdict(self) | {"ceiling_percent": {str(km): share for km, share in self.ceiling_percent.items()}}


def measure_ceiling(test_deg_N2: Floats, gallery_deg_G2: Floats) -> Ceiling:
    """The ceiling of a gallery on a test set.

    Args:
        test_deg_N2: (N, 2) latitude, longitude in degrees.
        gallery_deg_G2: (G, 2) likewise.
    """
    nearest_km_N = nearest_place_km(test_deg_N2, gallery_deg_G2)
    return Ceiling(
        n=len(test_deg_N2),
        ceiling_percent=percent_within(nearest_km_N),
        median_km=float(np.median(nearest_km_N)),
        verbatim_in_gallery=verbatim_count(test_deg_N2, gallery_deg_G2),
    )
