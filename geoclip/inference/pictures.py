"""Pictures of predictions: a map for each query, and the guesses as a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table as RichTable
from rich.text import Text

from geoclip.data.blue_marble import read_earth
from geoclip.data.pictures import MAX_PIXELS, decode
from geoclip.errors import AssetError
from geoclip.evaluation.gallery import Gallery
from geoclip.geo.geodesy import haversine_km
from geoclip.inference.prediction import Guess, QueryResult
from geoclip.inference.prediction_map import Prediction, draw_prediction_png, draw_texts_png
from geoclip.inference.prediction_page import write_predictions_html
from geoclip.plotting.tables import Table
from geoclip.system.console import percent_text
from geoclip.system.files import read_regular


def guesses_table(title: str, guesses: Sequence[Guess], exif_deg: tuple[float, float] | None = None) -> RichTable:
    """For `rich.print`: a row per guess; how far off it is, where that is known; a link that no line break cuts.

    The score is the probability over the whole gallery. `exif_deg` is what the picture's own EXIF says of its place:
    it stands in the title, and nothing is computed from it but how far the best guess lies from it.
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
    table = Table(heads, rows, Text(title + _beside(guesses, exif_deg), "bold")).rich()
    rank, link = table.columns[0], table.columns[-1]
    rank.justify, link.justify, link.no_wrap = "right", "left", True
    return table


def _beside(guesses: Sequence[Guess], exif_deg: tuple[float, float] | None) -> str:
    if exif_deg is None:
        return ""
    best = torch.tensor([[guesses[0].lat, guesses[0].lon]], dtype=torch.float64)
    off_km = haversine_km(best, torch.tensor([exif_deg], dtype=torch.float64)).item()
    return f"  (EXIF, not used: {exif_deg[0]:.4f}, {exif_deg[1]:.4f}; the best guess is {off_km:,.0f} km off)"


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
            photo=None
            if self.photo is None
            else decode(read_regular(self.photo), PHOTO_PX, max_pixels=self.max_pixels),
        )


def draw_prediction_maps(folder: Path, gallery: Gallery, shown: Mapping[str, Drawn]) -> None:
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
    locations_G2 = gallery.gps_deg_G2.numpy()
    drawn = {name: one.as_prediction() for name, one in shown.items()}
    for name, prediction in drawn.items():
        draw_prediction_png(folder / f"{name}.png", locations_G2, prediction, background)
    texts = [drawn[name] for name, one in shown.items() if one.photo is None]
    if len(texts) > 1:
        draw_texts_png(folder / "texts.png", locations_G2, texts, background)
        log.info("texts side by side: %s", folder / "texts.png")
    page = folder / (f"{next(iter(drawn))}.html" if len(drawn) == 1 else "index.html")
    write_predictions_html(page, locations_G2, drawn.values(), background)
    log.info("map to zoom: %s", page)
