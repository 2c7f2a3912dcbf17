"""What the model says of one photograph, and how its heat is coloured: shared by the picture and the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from geoclip.drawing.world import HEAT_COLORS, Floats, checked_degrees, south_north
from geoclip.errors import DataError

DECADES = (2.0, 6.0)  # fewest and most powers of ten that the heat's colours span


@dataclass(kw_only=True, slots=True, frozen=True)
class Prediction:
    """What the model says of one photograph.

    Attributes:
        title: what the picture is called, usually its file name.
        probability_G: softmax over the gallery; depends on the gallery's size and density.
        top_deg_k2: the best places, latitude and longitude in degrees, best first.
        top_probability_k: their probabilities.
        truth_deg: latitude and longitude of the photograph, where known.
        photo: the photograph.
    """

    title: str
    probability_G: Floats
    top_deg_k2: Floats
    top_probability_k: Floats
    truth_deg: tuple[float, float] | None = None
    photo: Image.Image | None = None

    def check(self, gallery_deg_G2: Floats) -> None:
        """Raise DataError unless this can be drawn over the gallery."""
        probability_G = np.asarray(self.probability_G)
        if len(probability_G) != len(gallery_deg_G2):
            raise DataError(
                f"{self.title}: {len(probability_G)} probabilities for {len(gallery_deg_G2)} gallery places"
            )
        if not (np.isfinite(probability_G) & (probability_G >= 0)).all() or not probability_G.max() > 0:
            raise DataError(f"{self.title}: the probabilities over the gallery are not finite and positive")
        if len(checked_degrees(self.top_deg_k2, f"{self.title}: best places")) != len(self.top_probability_k):
            raise DataError(f"{self.title}: the best places and their probabilities do not pair")
        if self.truth_deg is not None:
            checked_degrees(np.array([self.truth_deg]), f"{self.title}: true place")


def latitudes_of(gallery_deg_G2: Floats, prediction: Prediction) -> tuple[float, float]:
    """South and north of a map that shows the gallery, the guesses and the truth."""
    truth = [] if prediction.truth_deg is None else [np.array([prediction.truth_deg])]
    return south_north(gallery_deg_G2, np.asarray(prediction.top_deg_k2), *truth)


def heat_range(probability_G: Floats) -> tuple[float, float]:
    """log10 probabilities between which the heat's colours run: from the gallery's median to its best place.

    Half of the gallery stays dark, but the span is held between two and six powers of ten: a sharp model would
    else show one dot, and a blunt one would colour noise.
    """
    high = float(np.log10(probability_G.max()))
    median = float(np.log10(max(float(np.median(probability_G)), 1e-300)))
    return high - float(np.clip(high - median, *DECADES)), high


def draw_heat(axes: Axes, gallery_deg_G2: Floats, probability_G: Floats, low: float, high: float) -> None:
    """Every place of the gallery as a dot; the likelier the larger, the brighter and the later drawn."""
    order = np.argsort(probability_G)
    with np.errstate(divide="ignore"):
        share_G = ((np.log10(probability_G[order]) - low) / (high - low)).clip(0, 1)
    color_G4 = HEAT_COLORS(share_G)
    color_G4[:, 3] = 0.3 + 0.7 * share_G
    count_scale = float(np.clip((20_000 / len(order)) ** 0.3, 0.6, 2.5))
    size_G = (1.5 + 26 * share_G**3) * count_scale
    axes.scatter(gallery_deg_G2[order, 1], gallery_deg_G2[order, 0], s=size_G, c=color_G4, linewidths=0, zorder=3)


def place_text(lat: float, lon: float) -> str:
    """48.8584° N, 2.2945° E."""
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"


def decade_ticks(low: float, high: float) -> list[float]:
    """The whole powers of ten between two exponents."""
    ticks: list[float] = np.arange(np.ceil(low), np.floor(high) + 1).tolist()
    return ticks
