"""What an evaluation says beyond distances: regions, groups, ranks, confidence. Training asks for none of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from geoclip.evaluation.accuracy import Accuracy, Floats, nearest_place_km
from geoclip.evaluation.confidence import reliability
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.images import Predictions
from geoclip.evaluation.protocols import within
from geoclip.evaluation.ranking import MASS_KM, RECALL_RANKS, Ranking, best_of_km, recall
from geoclip.evaluation.regions import TRAINING_BINS, Regions, by_group, look_up_regions, region_accuracy, training_bins
from geoclip.evaluation.significance import mean_interval


@dataclass(kw_only=True, slots=True)
class Details:
    """One row per image."""

    error_km_N: Floats
    regions: Regions
    ranking: Ranking
    best_of_km_Nk: Floats  # from the truth to the nearest of the first 1 … k guesses
    nearest_train_km_N: Floats | None  # on the sphere; None: the training places are not known
    training_places: int | None
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
            found["training_places"] = self.training_places
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
    truth_N2, places_G2 = predictions.gps_deg_N2.double().numpy(), gallery.gps_deg_G2.numpy()
    return Details(
        error_km_N=predictions.distance_km_N.numpy(),
        regions=look_up_regions(truth_N2, predictions.guess_deg_N2.numpy()),
        ranking=predictions.ranking,
        best_of_km_Nk=best_of_km(predictions.ranking.row_Nk, places_G2, truth_N2, protocol),
        nearest_train_km_N=None if train_deg_T2 is None else nearest_place_km(truth_N2, train_deg_T2),
        training_places=None if train_deg_T2 is None else len(train_deg_T2),
        gallery_size=len(places_G2),
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
