"""Rows and file names of predictions: a JSON for each query, a line of predictions.csv."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.prediction import QueryResult


@dataclass(kw_only=True, slots=True, frozen=True)
class Query:
    """An image or a text whose location is predicted."""

    title: str
    photo: Path | None = None
    truth_deg: tuple[float, float] | None = None  # from a json beside the picture
    exif_deg: tuple[float, float] | None = None  # from the picture's own EXIF; shown, never used


def file_names(keys: list[str]) -> dict[str, str]:
    """The name of each query's files: its own without the suffix, and a number where two would be the same."""
    taken: dict[str, str] = {}  # key by name
    for key in keys:
        stem = key.replace("/", "_")
        stem = stem.rsplit(".", 1)[0] if "." in stem[1:] else stem
        stem = "_".join(stem.split())[:80]
        numbered = (f"{stem}-{number}" for number in count(2))
        taken[next(name for name in chain((stem,), numbered) if name not in taken)] = key
    return {key: name for name, key in taken.items()}


def answer_row(query: Query, result: QueryResult, gallery: Gallery, **facts: Any) -> dict[str, Any]:
    """The JSON of one image or text."""
    queried: dict[str, Any] = {"text": query.title}
    if query.photo is not None:
        queried = {
            "image": str(query.photo),
            "truth": _as_coordinates(query.truth_deg),
            "exif": _as_coordinates(query.exif_deg),
        }
    return (
        queried
        | facts
        | {
            "gallery": gallery.name,
            "gallery_size": len(gallery.gps_deg_G2),
            "gallery_sha256": gallery.sha256,
            "predictions": [asdict(guess) | {"map": guess.map} for guess in result.guesses],
        }
    )


def summary_row(query: Query, result: QueryResult) -> dict[str, Any]:
    """One line of predictions.csv."""
    first = result.guesses[0]
    return {
        "query": query.title,
        "lat": first.lat,
        "lon": first.lon,
        "probability": first.probability,
        "distance_km": first.distance_km,
    }


def _as_coordinates(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return pair and dict(zip(("lat", "lon"), pair, strict=True))
