"""Which coordinates make a gallery. Pure numpy and k-d trees, seeded.

Always in this order: places that differ → inside the box → in the countries → not of a test set → drawn at random, none
nearer to another than the radius → the first so many of them.

The result is a function of the set of coordinates that comes in, not of its order: neither the order of shards or rows
nor a place that occurs twice changes anything. The order that it comes out in is the random one, so that with the same
seed a smaller gallery is the beginning of a larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from geoclip.data.galleries.countries import countries_of
from geoclip.errors import DataError
from geoclip.geo.geodesy import EARTH_RADIUS_KM, in_box, unit_vectors

Places = NDArray[np.float64]  # (N, 2) latitude, longitude in degrees
Mask = NDArray[np.bool_]

FIRST_BLOCK = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class GalleryRules:
    """What a place must be like to come into the gallery. Neutral values let everything in."""

    box_deg: tuple[float, float, float, float] | None = None  # south, west, north, east
    countries: tuple[str, ...] = ()  # ISO 3166 alpha-2
    exclude_radius_km: float = 0.0
    radius_km: float = 0.0
    size: int | None = None
    seed: int = 0


def build_places(gps_deg_N2: Places, rules: GalleryRules, excluded_deg_M2: Places) -> tuple[Places, dict[str, int]]:
    """A gallery out of coordinates.

    Args:
        gps_deg_N2: (N, 2) degrees, in any order.
        rules: the filters.
        excluded_deg_M2: (M, 2) degrees: the coordinates of test sets.

    Returns:
        (G, 2) its places in random order, and how many were left after each stage, by the stage's name.

    Raises:
        DataError: a filter leaves nothing, or fewer than `rules.size`.
    """
    counts = {"read": len(gps_deg_N2)}
    places = distinct(gps_deg_N2)
    _count(counts, "distinct", places)
    if rules.box_deg is not None:
        places = places[in_box(places, rules.box_deg)]
        _count(counts, "in box", places)
    if rules.countries:
        places = places[np.isin(countries_of(places), rules.countries)]
        _count(counts, "in country", places)
    if len(excluded_deg_M2):
        places = places[~is_near(places, excluded_deg_M2, rules.exclude_radius_km)]
        _count(counts, "not excluded", places)
    places = places[np.random.default_rng(rules.seed).permutation(len(places))]
    if rules.radius_km > 0:
        places = places[apart(places, rules.radius_km)]
        _count(counts, "apart", places)
    if rules.size is not None:
        if len(places) < rules.size:
            raise DataError(
                f"size={rules.size} places cannot be drawn from the {len(places)} that are left "
                f"({', '.join(f'{stage}: {count}' for stage, count in counts.items())}); lower size or the radii"
            )
        places = places[: rules.size]
        _count(counts, "drawn", places)
    return places, counts


def distinct(gps_deg_N2: Places) -> Places:
    """Every place once, by latitude and then longitude; -0 and 0 are one number."""
    return np.unique(_numbers(gps_deg_N2)).view(np.float64).reshape(-1, 2)


def is_near(gps_deg_N2: Places, others_deg_M2: Places, radius_km: float) -> Mask:
    """(N,) whether one of the others lies within the radius; with 0, at the very same coordinates in float64."""
    if radius_km == 0:
        return np.isin(_numbers(gps_deg_N2), _numbers(others_deg_M2))
    distance_N, _ = cKDTree(_on_sphere(others_deg_M2)).query(_on_sphere(gps_deg_N2))
    return np.asarray(distance_N <= _chord(radius_km))


def apart(gps_deg_N2: Places, radius_km: float) -> NDArray[np.int64]:
    """The rows that stay when each, one after the other, is dropped if one that was kept before lies within the radius.

    No two of them are nearer to each other, and every dropped place has one of them within the radius. In blocks that
    double: a place is first compared with all that was kept before its block, so that only few are compared with each
    other and time and memory stay linear in N even where thousands lie within one radius. The rows must be in random
    order for that.

    Returns:
        (K,) row numbers, ascending.
    """
    chord = _chord(radius_km)
    vectors_N3 = _on_sphere(gps_deg_N2)
    kept = np.empty(0, dtype=np.int64)
    start, size = 0, FIRST_BLOCK
    with tqdm(total=len(vectors_N3), desc="keeping places apart", unit="place", delay=2) as bar:
        while start < len(vectors_N3):
            rows = np.arange(start, min(start + size, len(vectors_N3)))
            bar.update(len(rows))
            if len(kept):
                distance_N, _ = cKDTree(vectors_N3[kept]).query(vectors_N3[rows])
                rows = rows[distance_N > chord]
            if len(rows):
                pairs_P2 = cKDTree(vectors_N3[rows]).query_pairs(chord, output_type="ndarray")
                kept = np.concatenate((kept, rows[_first_come(pairs_P2, len(rows))]))
            start, size = start + size, 2 * size
    return kept


def _first_come(pairs_P2: NDArray[np.int64], count: int) -> Mask:
    """(count,) which of 0 … count-1 stay when, in order, each is dropped that is paired with one that stays.

    In rounds rather than one by one: whoever has no undecided earlier partner stays, and drops its later ones. For
    random orders the rounds are few: Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching
    are parallel on average", SPAA 2012.
    """
    dropped = np.zeros(count, dtype=np.bool_)
    earlier, later = pairs_P2.min(axis=1, initial=count), pairs_P2.max(axis=1, initial=-1)
    while len(earlier):
        waits = np.zeros(count, dtype=np.bool_)
        waits[later] = True
        dropped[later[~waits[earlier]]] = True
        open_P = ~(dropped[earlier] | dropped[later])
        earlier, later = earlier[open_P], later[open_P]
    return ~dropped


def _count(counts: dict[str, int], stage: str, places: Places) -> None:
    counts[stage] = len(places)
    if not len(places):
        done = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise DataError(f"no place is left for the gallery ({done}); widen that filter")


def _numbers(gps_deg_N2: Places) -> NDArray[np.complex128]:
    """(N,) one number for each place, equal when both coordinates are."""
    return np.ascontiguousarray(gps_deg_N2 + 0.0, dtype=np.float64).view(np.complex128)[:, 0]


def _chord(radius_km: float) -> float:
    """The straight way between two places of the unit sphere that are so far apart."""
    return 2 * math.sin(min(radius_km / (2 * EARTH_RADIUS_KM), math.pi / 2))


def _on_sphere(gps_deg_N2: Places) -> NDArray[np.float64]:
    return np.asarray(unit_vectors(torch.from_numpy(np.ascontiguousarray(gps_deg_N2))))
