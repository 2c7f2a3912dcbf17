"""Evaluate embedded images against a gallery, and write the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geoclip.evaluation.details import Details
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.metrics import (
    Accuracy,
    distance_km,
    nearest_location,
    percent_within,
    shares_json,
    summarise,
    verbatim_count,
)
from geoclip.evaluation.retrieval import Predictions, Queries, nearest_in_gallery, rank_gallery, require_finite
from geoclip.runs.run_dir import write_json
from geoclip.system.files import write_text_atomic


@dataclass(kw_only=True, slots=True)
class BenchmarkResult:
    """Accuracy of a model on a benchmark, and the limits that the gallery sets."""

    benchmark: str
    protocol: str
    gallery: Gallery
    accuracy: Accuracy
    ceiling_percent: dict[int, float]  # what a perfect model could reach with this gallery
    verbatim_in_gallery: int


def evaluate_benchmark(
    name: str,
    queries: Queries,
    gallery: Gallery,
    gallery_GD: Tensor,
    *,
    seed: int = 0,
    protocol: str = "sphere",
    scale: float | None = None,
) -> tuple[BenchmarkResult, Predictions]:
    """Predict the most similar location of the gallery for every image, and measure the errors.

    Args:
        name: of the benchmark.
        queries: the images.
        gallery: coordinates.
        gallery_GD: (G, D) their embeddings.
        seed: of the bootstrap.
        protocol: sphere or released, see `distance_km`.
        scale: exp of the logit scale, to rank the gallery too, which doubles the time; None: no ranking.

    Raises:
        DataError: embeddings that are not finite.
    """
    require_finite(queries.image_ND, gallery_GD)
    truth_N2, locations_G2 = queries.gps_deg_N2.double().numpy(), gallery.gps_deg_G2.numpy()
    nearest_N, ceiling_km_N = nearest_location(truth_N2, locations_G2, protocol)
    if scale is None:
        ranking = None
        score_N1, row_N1 = nearest_in_gallery(queries.image_ND, gallery_GD, 1)
    else:
        ranking = rank_gallery(queries.image_ND, gallery_GD, locations_G2, nearest_N, scale)
        score_N1, row_N1 = ranking.cosine_Nk[:, :1], ranking.row_Nk[:, :1]
    guess_deg_N2 = gallery.gps_deg_G2[row_N1[:, 0].cpu()]
    error_km_N = distance_km(guess_deg_N2.numpy(), truth_N2, protocol)
    result = BenchmarkResult(
        benchmark=name,
        protocol=protocol,
        gallery=gallery,
        accuracy=summarise(error_km_N, seed, protocol),
        ceiling_percent=percent_within(ceiling_km_N, protocol),
        verbatim_in_gallery=verbatim_count(truth_N2, locations_G2),
    )
    predictions = Predictions(
        keys=queries.keys,
        gps_deg_N2=queries.gps_deg_N2,
        guess_deg_N2=guess_deg_N2,
        distance_km_N=torch.from_numpy(error_km_N),
        ceiling_km_N=torch.from_numpy(ceiling_km_N),
        score_N=score_N1[:, 0].cpu(),
        ranking=ranking,
    )
    return result, predictions


def result_row(
    name: str, result: BenchmarkResult, details: Details | None = None, *, seed: int = 0, **facts: Any
) -> dict[str, Any]:
    """The contents of NAME.json; `facts` are hashes, revision and the like."""
    accuracy = result.accuracy
    return {
        "benchmark": result.benchmark,
        "protocol": result.protocol,
        "n": accuracy.n,
        "accuracy_percent": shares_json(accuracy.percent),
        "median_km": accuracy.median_km.value,
        "mean_km": accuracy.mean_km,
        "geoscore": accuracy.geoscore.value,
        "median_km_interval": [accuracy.median_km.low, accuracy.median_km.high],
        "geoscore_interval": [accuracy.geoscore.low, accuracy.geoscore.high],
        "ceiling_percent": {str(km): share for km, share in result.ceiling_percent.items()},
        "gallery": result.gallery.name,
        "gallery_size": len(result.gallery.gps_deg_G2),
        "verbatim_in_gallery": result.verbatim_in_gallery,
        "gallery_sha256": result.gallery.sha256,
        **(details.as_json(result.protocol, seed) if details else {}),
        "evaluation": name,
        "bootstrap_seed": seed,
        **facts,
    }


def write_result(path: Path, row: Mapping[str, Any], predictions: Predictions, details: Details | None = None) -> None:
    """Write `path`.json and .csv, each complete or not at all."""
    truth, guess = predictions.gps_deg_N2.numpy(), predictions.guess_deg_N2.numpy()
    table = pd.DataFrame(
        {
            "key": predictions.keys,
            "lat": truth[:, 0],
            "lon": truth[:, 1],
            "predicted_lat": guess[:, 0],
            "predicted_lon": guess[:, 1],
            "distance_km": predictions.distance_km_N.numpy().round(6),  # a millimetre
            "ceiling_km": predictions.ceiling_km_N.numpy().round(6),
            "score": predictions.score_N.numpy().round(5),
            **(details.columns() if details else {}),
        }
    )
    write_text_atomic(path.with_name(f"{path.name}.csv"), table.to_csv(index=False))
    write_json(path.with_name(f"{path.name}.json"), dict(row))
