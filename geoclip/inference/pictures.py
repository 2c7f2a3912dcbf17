"""Output of predictions: a table for the console, and maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.table import Table as RichTable
from rich.text import Text

from geoclip.data.blue_marble import read_earth
from geoclip.data.pictures import decode
from geoclip.errors import AssetError
from geoclip.evaluation.gallery import Gallery
from geoclip.geo.geodesy import haversine_km
from geoclip.inference.prediction import Guess, Query, QueryResult
from geoclip.inference.prediction_map import Prediction, draw_prediction_png, draw_texts_png
from geoclip.inference.prediction_page import write_predictions_html
from geoclip.plotting.tables import Table
from geoclip.system.console import percent_text
from geoclip.system.files import read_regular

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the map's background
PHOTO_PX = 560  # of the photograph beside the map


def guesses_table(title: str, guesses: Sequence[Guess], exif_deg: tuple[float, float] | None = None) -> RichTable:
    """A row per prediction: coordinates, probability over the gallery, cosine, error in km if the truth is known, link.

    `exif_deg`, the coordinates in the picture's EXIF, is only shown in the title, with the distance to it.
    """
    known = any(guess.distance_km is not None for guess in guesses)
    heads = ["rank", "latitude", "longitude", "score", "cosine", *(["km off"] if known else []), "map"]
    rows = [
        [
            *(f"{guess.rank}", f"{guess.lat:.4f}", f"{guess.lon:.4f}"),
            *(f"{percent_text(100 * guess.probability, 2)} %", f"{guess.cosine:.3f}"),
            *([] if guess.distance_km is None else [f"{guess.distance_km:,.0f}"]),
            guess.map,
        ]
        for guess in guesses
    ]
    if exif_deg is not None:
        best = torch.tensor([[guesses[0].lat, guesses[0].lon]], dtype=torch.float64)
        off_km = haversine_km(best, torch.tensor([exif_deg], dtype=torch.float64)).item()
        title += f"  (EXIF, not used: {exif_deg[0]:.4f}, {exif_deg[1]:.4f}; {off_km:,.0f} km from rank 1)"
    table = Table(heads, rows, Text(title, "bold")).rich()
    rank, link = table.columns[0], table.columns[-1]
    rank.justify, link.justify, link.no_wrap = "right", "left", True
    return table


def prediction_to_draw(title: str, query: Query, result: QueryResult, max_pixels: int) -> Prediction:
    """A result as the maps need it, with the photograph, which may have `max_pixels`."""
    photo = None
    if query.photo is not None:
        photo = decode(read_regular(query.photo), PHOTO_PX, max_pixels=max_pixels)
    return Prediction(
        title=title,
        probability_G=result.heat_G,
        top_deg_k2=np.array([(guess.lat, guess.lon) for guess in result.guesses]),
        top_probability_k=np.array([guess.probability for guess in result.guesses]),
        truth_deg=query.truth_deg,
        photo=photo,
    )


def draw_prediction_maps(folder: Path, gallery: Gallery, predictions: Mapping[str, Prediction]) -> None:
    """Draw NAME.png of each, texts.png of several texts, and one page with an interactive map.

    Without the picture of the Earth nothing is drawn, with a warning.
    """
    if not predictions:
        return
    try:
        background = read_earth(EARTH_PX)
    except AssetError as error:
        log.warning("no maps: %s", error)
        return
    locations_G2 = gallery.gps_deg_G2.numpy()
    for name, prediction in predictions.items():
        draw_prediction_png(folder / f"{name}.png", locations_G2, prediction, background)
    texts = [prediction for prediction in predictions.values() if prediction.photo is None]
    if len(texts) > 1:
        draw_texts_png(folder / "texts.png", locations_G2, texts, background)
        log.info("maps of all texts: %s", folder / "texts.png")
    page = folder / (f"{next(iter(predictions))}.html" if len(predictions) == 1 else "index.html")
    write_predictions_html(page, locations_G2, list(predictions.values()), background)
    log.info("interactive map: %s", page)
