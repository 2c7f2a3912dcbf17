"""Accuracy by where the truth lies: in which country, on which continent, and how far from the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoclip.data.galleries.countries import regions_of
from geoclip.evaluation.accuracy import Accuracy, Floats, summarise
from geoclip.evaluation.significance import Interval, share_interval

TRAINING_BIN_EDGES_KM = (1, 25, 200, 750)
TRAINING_BINS = ("0-1", "1-25", "25-200", "200-750", "750-")  # km, the lower end included

Names = NDArray[np.str_]


@dataclass(kw_only=True, slots=True)
class Regions:
    """One row per image; names are empty at sea."""

    country_N: Names  # ISO 3166 alpha-2
    predicted_country_N: Names
    continent_N: Names
    predicted_continent_N: Names


@dataclass(kw_only=True, slots=True, frozen=True)
class RegionAccuracy:
    """Share of images whose guess lies in the same region as the truth."""

    n: int  # images whose truth lies in a region: the others cannot be right
    percent: Interval


def look_up_regions(truth_deg_N2: Floats, guess_deg_N2: Floats) -> Regions:
    """Country and continent of every truth and every guess, of each distinct place once."""
    both_2N = np.concatenate((truth_deg_N2, guess_deg_N2))
    places_P2, place_2N = np.unique(both_2N, axis=0, return_inverse=True)
    country_P, continent_P = regions_of(places_P2)
    country_2N, continent_2N = country_P[place_2N.reshape(-1)], continent_P[place_2N.reshape(-1)]
    count = len(truth_deg_N2)
    return Regions(
        country_N=country_2N[:count],
        predicted_country_N=country_2N[count:],
        continent_N=continent_2N[:count],
        predicted_continent_N=continent_2N[count:],
    )


def region_accuracy(truth_N: Names, guess_N: Names) -> RegionAccuracy | None:
    """Share of guesses that name the truth's region, in percent; None where no truth lies in one.

    A truth at sea has no right answer and does not count. A guess at sea does, as wrong.
    """
    known_N = truth_N != ""
    if not known_N.any():
        return None
    right_N = truth_N[known_N] == guess_N[known_N]
    return RegionAccuracy(n=len(right_N), percent=share_interval(right_N))


def by_group(error_km_N: Floats, group_N: Names, *, seed: int = 0, protocol: str = "sphere") -> Mapping[str, Accuracy]:
    """All measures within every group that occurs, by its name; an empty name is no group."""
    return {str(name): summarise(error_km_N[group_N == name], seed, protocol) for name in np.unique(group_N) if name}


def training_bins(nearest_train_km_N: Floats) -> Names:
    """(N,) which of TRAINING_BINS each distance to the nearest training place falls in."""
    bin_N = np.searchsorted(TRAINING_BIN_EDGES_KM, nearest_train_km_N, side="right")
    return np.array(TRAINING_BINS)[bin_N]
