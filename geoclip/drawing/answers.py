"""All pictures of a prediction: a map for each query, texts side by side, and one page to zoom."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoclip.data.blue_marble import read_earth
from geoclip.data.pictures import MAX_PIXELS, decode
from geoclip.drawing.prediction import Prediction
from geoclip.drawing.prediction_map import draw_prediction_png
from geoclip.drawing.prediction_page import write_predictions_html
from geoclip.drawing.text_maps import draw_texts_png
from geoclip.errors import AssetError
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.prediction import QueryResult
from geoclip.files import read_plain

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the map's background
PHOTO_PX = 560  # of the photograph beside the map


@dataclass(kw_only=True, slots=True, frozen=True)
class Drawn:
    """An answer, and what is drawn beside it."""

    title: str
    photo: Path | None  # None: a text was asked
    truth_deg: tuple[float, float] | None
    answer: QueryResult
    max_pixels: int = MAX_PIXELS  # of the photo, as it was read with

    def as_prediction(self) -> Prediction:
        """As the maps take it."""
        guesses = self.answer.guesses
        return Prediction(
            title=self.title,
            probability_G=self.answer.heat_G,
            top_deg_k2=np.array([(guess.lat, guess.lon) for guess in guesses]),
            top_probability_k=np.array([guess.probability for guess in guesses]),
            truth_deg=self.truth_deg,
            photo=None if self.photo is None else decode(read_plain(self.photo), PHOTO_PX, max_pixels=self.max_pixels),
        )


def draw_answers(folder: Path, gallery: Gallery, shown: Mapping[str, Drawn]) -> None:
    """NAME.png of each, texts.png of several texts, and one page with a map to zoom for all of them.

    Where the Earth's picture is out of reach nothing is drawn, and that is said: the predictions stand.
    """
    if not shown:
        return
    try:
        background = read_earth(EARTH_PX)
    except AssetError as error:
        log.warning("no maps: %s", error)
        return
    places_G2 = gallery.gps_deg_G2.numpy()
    drawn = {name: one.as_prediction() for name, one in shown.items()}
    for name, prediction in drawn.items():
        draw_prediction_png(folder / f"{name}.png", places_G2, prediction, background)
    texts = [drawn[name] for name, one in shown.items() if one.photo is None]
    if len(texts) > 1:
        draw_texts_png(folder / "texts.png", places_G2, texts, background)
        log.info("texts side by side: %s", folder / "texts.png")
    page = folder / (f"{next(iter(drawn))}.html" if len(drawn) == 1 else "index.html")
    write_predictions_html(page, places_G2, drawn.values(), background)
    log.info("map to zoom: %s", page)
