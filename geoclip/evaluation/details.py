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
from geoclip.evaluation.metrics import Accuracy, Floats, nearest_location_km, shares_json, summarise, within
from geoclip.evaluation.retrieval import MASS_KM, RECALL_RANKS, Predictions, Ranking, best_of_km, recall
from geoclip.evaluation.significance import mean_interval, share_interval

TRAINING_BIN_EDGES_KM = (1, 25, 200, 750)
TRAINING_BINS = ("0-1", "1-25", "25-200", "200-750", "750-")  # km, the lower end included
BINS = 15  # of confidence, as in Guo et al.

Names = NDArray[np.str_]


def look_up_regions(truth_deg_N2: Floats, guess_deg_N2: Floats) -> dict[str, Names]:
    """Columns country (ISO 3166 alpha-2), predicted_country, continent, predicted_continent; empty names at sea."""
    both_2N = np.concatenate((truth_deg_N2, guess_deg_N2))
    locations_P2, location_2N = np.unique(both_2N, axis=0, return_inverse=True)
    columns = {}
    for name, region_P in zip(("country", "continent"), regions_of(locations_P2), strict=True):
        region_2N = region_P[location_2N.reshape(-1)]
        columns[name], columns[f"predicted_{name}"] = np.split(region_2N, 2)
    return columns


def region_accuracy(truth_N: Names, guess_N: Names) -> dict[str, Any] | None:
    """Number n of images with the truth in a region, and percent with the prediction in the same; None if n = 0.

    A prediction at sea is wrong.
    """
    known_N = truth_N != ""
    if not known_N.any():
        return None
    right_N = truth_N[known_N] == guess_N[known_N]
    return {"n": len(right_N), "percent": asdict(share_interval(right_N))}


def by_group(error_km_N: Floats, group_N: Names, *, seed: int = 0, protocol: str = "sphere") -> dict[str, Accuracy]:
    """All measures by group; an empty name is no group."""
    return {str(name): summarise(error_km_N[group_N == name], seed, protocol) for name in np.unique(group_N) if name}


def training_bins(nearest_train_km_N: Floats) -> Names:
    """(N,) the bin of each distance to the nearest training location, one of TRAINING_BINS."""
    bin_N = np.searchsorted(TRAINING_BIN_EDGES_KM, nearest_train_km_N, side="right")
    return np.array(TRAINING_BINS)[bin_N]


@dataclass(kw_only=True, slots=True, frozen=True)
class Bin:
    """Images of similar confidence."""

    n: int
    confidence: float  # mean probability, in [0, 1]
    share: float  # of the images that are right


@dataclass(kw_only=True, slots=True, frozen=True)
class Reliability:
    """Difference between confidence and accuracy."""

    ece: float  # expected calibration error in [0, 1]
    overconfidence: float  # mean confidence minus accuracy; negative: underconfident
    bins: tuple[Bin, ...]  # by rising confidence


def reliability(confidence_N: Floats, is_right_N: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Expected calibration error over bins of equally many images.

    With n images even a calibrated model has an error of about 0.4 · sqrt(bins / n): 0.02 for n = 4,500.

    Args:
        confidence_N: (N,) probabilities that an image is right.
        is_right_N: (N,) whether it is.
        bins: at most; fewer images have one each.

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
        Bin(n=len(rows), confidence=float(confidence_N[rows].mean()), share=float(is_right_N[rows].mean()))
        for rows in np.array_split(order, min(bins, len(order)))
    )
    return Reliability(
        ece=sum(one.n * abs(one.confidence - one.share) for one in found) / len(order),
        overconfidence=float(confidence_N.mean() - is_right_N.mean()),
        bins=found,
    )


@dataclass(kw_only=True, slots=True)
class Details:
    """One row per image."""

    error_km_N: Floats
    regions: dict[str, Names]  # by column, see `look_up_regions`
    ranking: Ranking
    best_of_km_Nk: Floats  # from the truth to the nearest of the first 1 … k predictions
    nearest_train_km_N: Floats | None  # on the sphere; None: the training locations are unknown
    training_locations: int | None
    gallery_size: int

    def as_json(self, protocol: str = "sphere", seed: int = 0) -> dict[str, Any]:
        """Their part of NAME.json; `seed` is that of the bootstrap."""
        found: dict[str, Any] = {}
        for name in ("country", "continent"):
            found[name] = region_accuracy(self.regions[name], self.regions[f"predicted_{name}"])
        by_continent = by_group(self.error_km_N, self.regions["continent"], seed=seed, protocol=protocol)
        found |= {
            "by_continent": _groups_json(by_continent),
            "recall_percent": {
                str(rank): shares_json(shares) for rank, shares in recall(self.best_of_km_Nk, protocol).items()
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
            found["by_training_km"] = _groups_json({name: groups[name] for name in TRAINING_BINS if name in groups})
            found["training_locations"] = self.training_locations
        return found

    def columns(self) -> dict[str, NDArray[Any]]:
        """Their part of NAME.csv, by column; `as_json` can be computed from it."""
        ranking, last = self.ranking, self.best_of_km_Nk.shape[1] - 1
        columns: dict[str, NDArray[Any]] = {
            **self.regions,
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
    """Details of predictions from this gallery; `train_deg_T2` are degrees of every training location, if known.

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


def _groups_json(groups: Mapping[str, Accuracy]) -> dict[str, Any]:
    return {
        name: {
            "n": one.n,
            "accuracy_percent": shares_json(one.percent),
            "median_km": asdict(one.median_km),
            "geoscore": asdict(one.geoscore),
        }
        for name, one in groups.items()
    }
