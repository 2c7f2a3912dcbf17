"""Details of an evaluation: regions, groups of images, ranks and confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoclip.data.countries import regions_of
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.images import Predictions
from geoclip.evaluation.metrics import Accuracy, Floats, nearest_location_km, summarise, within
from geoclip.evaluation.retrieval import MASS_KM, RECALL_RANKS, Ranking, best_of_km, recall
from geoclip.evaluation.significance import Interval, mean_interval, share_interval

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


BINS = 15  # as Guo et al. have it


@dataclass(kw_only=True, slots=True, frozen=True)
class Bin:
    """Images of similar confidence."""

    n: int
    confidence: float  # mean of what the model says, in [0, 1]
    share: float  # of the images for which it came true


@dataclass(kw_only=True, slots=True, frozen=True)
class Reliability:
    """How far what a model says of itself lies from what came true."""

    ece: float  # expected calibration error in [0, 1]
    overconfidence: float  # mean confidence minus the share that came true; negative: too modest
    bins: tuple[Bin, ...]  # by rising confidence


def reliability(confidence_N: Floats, came_true_N: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Expected calibration error over bins that hold equally many images, and the bins.

    Of n images even a calibrated model shows an error of about 0.4 · sqrt(bins / n): 0.02 of 4,500.

    Args:
        confidence_N: (N,) probabilities.
        came_true_N: (N,) whether what they are of came true.
        bins: at most so many; fewer images have one each.

    Raises:
        ValueError: no images.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3; with bins of equal mass
    after Nguyen, O'Connor, "Posterior calibration and exploratory analysis for natural language processing models",
    EMNLP 2015, section 4.
    """
    if not len(confidence_N):
        raise ValueError("no images to measure calibration on")
    order = np.argsort(confidence_N, kind="stable")
    found = tuple(
        Bin(n=len(rows), confidence=float(confidence_N[rows].mean()), share=float(came_true_N[rows].mean()))
        for rows in np.array_split(order, min(bins, len(order)))
    )
    gaps = [one.n * abs(one.confidence - one.share) for one in found]
    return Reliability(
        ece=sum(gaps) / len(order), overconfidence=float(confidence_N.mean() - came_true_N.mean()), bins=found
    )


@dataclass(kw_only=True, slots=True)
class Details:
    """One row per image."""

    error_km_N: Floats
    regions: Regions
    ranking: Ranking
    best_of_km_Nk: Floats  # from the truth to the nearest of the first 1 … k guesses
    nearest_train_km_N: Floats | None  # on the sphere; None: the training places are not known
    training_locations: int | None
    gallery_size: int

    def as_json(self, protocol: str = "sphere", seed: int = 0) -> dict[str, Any]:
        """What eval/<benchmark>.json has of them; `seed` is that of the intervals."""
        found: dict[str, Any] = {
            "country": _plain(region_accuracy(self.regions.country_N, self.regions.predicted_country_N)),
            "continent": _plain(region_accuracy(self.regions.continent_N, self.regions.predicted_continent_N)),
            "by_continent": _groups(by_group(self.error_km_N, self.regions.continent_N, seed=seed, protocol=protocol)),
            "recall_percent": {
                str(rank): {str(km): asdict(interval) for km, interval in shares.items()}
                for rank, shares in recall(self.best_of_km_Nk, protocol).items()
            },
            "nll_nats": asdict(mean_interval(self.ranking.nll_N, seed)),
            "nll_of_chance_nats": math.log(self.gallery_size),
            "calibration": {
                str(km): asdict(reliability(mass_N, within(self.error_km_N, km, protocol)))
                for km, mass_N in self.ranking.mass_km_N.items()
            },
        }
        if self.nearest_train_km_N is not None:
            groups = by_group(self.error_km_N, training_bins(self.nearest_train_km_N), seed=seed, protocol=protocol)
            found["by_training_km"] = _groups({name: groups[name] for name in TRAINING_BINS if name in groups})
            found["training_locations"] = self.training_locations
        return found

    def columns(self) -> dict[str, NDArray[Any]]:
        """What eval/<benchmark>.csv has of them, by column; from these all of `as_json` can be computed again."""
        regions, ranking = self.regions, self.ranking
        last = self.best_of_km_Nk.shape[1] - 1
        columns: dict[str, NDArray[Any]] = {
            "country": regions.country_N,
            "predicted_country": regions.predicted_country_N,
            "continent": regions.continent_N,
            "predicted_continent": regions.predicted_continent_N,
            **{f"best_of_{rank}_km": self.best_of_km_Nk[:, min(rank - 1, last)].round(6) for rank in RECALL_RANKS[1:]},
            "probability": ranking.probability_N,
            **{f"probability_{km}_km": ranking.mass_km_N[km] for km in MASS_KM},
            "nll_nats": ranking.nll_N,
        }
        if self.nearest_train_km_N is not None:
            columns["nearest_train_km"] = self.nearest_train_km_N.round(6)
        return columns


def detail(
    predictions: Predictions, gallery: Gallery, *, protocol: str = "sphere", train_deg_T2: Floats | None = None
) -> Details:
    """Look up what can be said of each image.

    Args:
        predictions: with their ranking.
        gallery: that was retrieved from.
        protocol: of distances.
        train_deg_T2: (T, 2) degrees of every place that was trained on, if they are known.

    Raises:
        ValueError: predictions without a ranking.
    """
    if predictions.ranking is None:
        raise ValueError("predictions without a ranking: evaluate_benchmark(…, scale=…) makes one")
    truth_N2, locations_G2 = predictions.gps_deg_N2.double().numpy(), gallery.gps_deg_G2.numpy()
    return Details(
        error_km_N=predictions.distance_km_N.numpy(),
        regions=look_up_regions(truth_N2, predictions.guess_deg_N2.numpy()),
        ranking=predictions.ranking,
        best_of_km_Nk=best_of_km(predictions.ranking.row_Nk, locations_G2, truth_N2, protocol),
        nearest_train_km_N=None if train_deg_T2 is None else nearest_location_km(truth_N2, train_deg_T2),
        training_locations=None if train_deg_T2 is None else len(train_deg_T2),
        gallery_size=len(locations_G2),
    )


def _plain(value: Any) -> Any:
    return None if value is None else asdict(value)


def _groups(groups: Mapping[str, Accuracy]) -> dict[str, Any]:
    return {
        name: {
            "n": one.n,
            "accuracy_percent": {str(km): asdict(interval) for km, interval in one.percent.items()},
            "median_km": asdict(one.median_km),
            "geoscore": asdict(one.geoscore),
        }
        for name, one in groups.items()
    }
