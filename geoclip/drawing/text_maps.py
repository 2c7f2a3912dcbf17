"""Texts side by side: where the model places each, a map apiece, on one scale of heat each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geoclip.drawing.prediction import Prediction, draw_heat, heat_range, latitudes_of, place_text
from geoclip.drawing.world import (
    MUTED,
    WIDTH_IN,
    Floats,
    Picture,
    add_axes,
    checked_degrees,
    draw_world,
    height_in,
    new_figure,
    save_figure,
    write,
)

MARGIN, GAP, HEAD = 0.3, 0.35, 0.45  # inches


def draw_texts_png(path: Path, gallery_deg_G2: Floats, texts: Sequence[Prediction], background: Picture) -> None:
    """Two maps in a row, the text above each, its best place below.

    Args:
        path: the PNG to write.
        gallery_deg_G2: (G, 2) latitude, longitude in degrees.
        texts: what the model says of each; the title is the text.
        background: (height, width, 3) equirectangular picture of the whole Earth.

    Raises:
        DataError: as `draw_prediction_png`.
    """
    gallery = checked_degrees(gallery_deg_G2, "gallery")
    for prediction in texts:
        prediction.check(gallery)
    columns = 2 if len(texts) > 1 else 1
    span = latitudes_of(gallery, texts[0])
    width = (WIDTH_IN - 2 * MARGIN - GAP * (columns - 1)) / columns
    map_height = height_in(width, span)
    rows = -(-len(texts) // columns)
    each = HEAD + map_height + HEAD
    figure = new_figure(WIDTH_IN, MARGIN + rows * each)
    for number, prediction in enumerate(texts):
        left = MARGIN + (number % columns) * (width + GAP)
        top = MARGIN + (number // columns) * each
        write(figure, left, top + 0.25, prediction.title, fontsize=13, fontweight="bold")
        axes = add_axes(figure, left, top + HEAD, width, map_height)
        draw_world(axes, background, span)
        heat = np.asarray(prediction.probability_G)
        draw_heat(axes, gallery, heat, *heat_range(heat))
        lat, lon = prediction.top_deg_k2[0]
        axes.scatter([lon], [lat], s=70, facecolor="none", edgecolor="white", linewidth=1.5, zorder=6)
        best = f"best: {place_text(lat, lon)}"
        write(figure, left, top + HEAD + map_height + 0.2, best, fontsize=10, color=MUTED)
    save_figure(figure, path)
