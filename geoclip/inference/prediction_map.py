"""Maps of predictions: probabilities and best locations of a photograph or a text on the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from geoclip.plotting.world import (
    HEAT_COLORS,
    INK,
    LINE,
    MUTED,
    NIGHT,
    WIDTH_IN,
    Floats,
    Picture,
    add_axes,
    draw_world,
    height_in,
    new_figure,
    power_of_ten,
    save_figure,
    south_north,
    write,
)
from geoclip.system.console import probability_text

DECADES = (2.0, 6.0)  # fewest and most powers of ten in the range of colours
MARGIN, SIDE, TOP = 0.3, 3.1, 0.65  # inches; the side has the photograph and the list
GAP, HEAD = 0.35, 0.45  # inches, between maps of texts
MARK_APART_PT = 11.0  # a little more than the diameter of a mark
TOP_COLOR, TRUTH_COLOR = "#ffffff", "#5ff2c2"


@dataclass(kw_only=True, slots=True, frozen=True)
class Prediction:
    """The prediction for one photograph or text.

    Attributes:
        title: file name or text.
        probability_G: softmax over the gallery; depends on the gallery's size and density.
        top_deg_k2: the best locations, latitude and longitude in degrees, best first.
        top_probability_k: their probabilities.
        truth_deg: latitude and longitude of the photograph, if known.
        photo: the photograph; None for a text.
    """

    title: str
    probability_G: Floats
    top_deg_k2: Floats
    top_probability_k: Floats
    truth_deg: tuple[float, float] | None = None
    photo: Image.Image | None = None


def latitudes_of(gallery_deg_G2: Floats, prediction: Prediction) -> tuple[float, float]:
    """South and north of a map with the gallery, the best locations and the truth."""
    truth = [] if prediction.truth_deg is None else [np.array([prediction.truth_deg])]
    return south_north(gallery_deg_G2, prediction.top_deg_k2, *truth)


def heat_range(probability_G: Floats) -> tuple[float, float]:
    """log10 probabilities at the ends of the colours: the gallery's median and its maximum.

    The range is limited to between two and six powers of ten: otherwise a sharp model would show a single dot, and a
    flat one would colour noise.
    """
    high = float(np.log10(probability_G.max()))
    median = float(np.log10(max(float(np.median(probability_G)), 1e-300)))
    return high - float(np.clip(high - median, *DECADES)), high


def draw_heat(axes: Axes, gallery_deg_G2: Floats, probability_G: Floats, low: float, high: float) -> None:
    """Every location of the gallery as a dot; likelier ones are larger, brighter, and drawn later."""
    order = np.argsort(probability_G)
    with np.errstate(divide="ignore"):
        share_G = ((np.log10(probability_G[order]) - low) / (high - low)).clip(0, 1)
    color_G4 = HEAT_COLORS(share_G)
    color_G4[:, 3] = 0.3 + 0.7 * share_G
    count_scale = float(np.clip((20_000 / len(order)) ** 0.3, 0.6, 2.5))
    size_G = (1.5 + 26 * share_G**3) * count_scale
    axes.scatter(gallery_deg_G2[order, 1], gallery_deg_G2[order, 0], s=size_G, c=color_G4, linewidths=0, zorder=3)


def location_text(lat: float, lon: float) -> str:
    """48.8584° N, 2.2945° E."""
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"


def decade_ticks(low: float, high: float) -> list[float]:
    """The integer exponents between two exponents."""
    ticks: list[float] = np.arange(np.ceil(low), np.floor(high) + 1).tolist()
    return ticks


def draw_prediction_png(path: Path, gallery_deg_G2: Floats, prediction: Prediction, background: Picture) -> None:
    """Photograph and best locations on the left, the probabilities of the gallery on the right.

    Args:
        path: the PNG to write.
        gallery_deg_G2: (G, 2) latitude, longitude in degrees.
        prediction: of the photograph; the truth is drawn as a star.
        background: (height, width, 3) equirectangular picture of the Earth.
    """
    photo, span = prediction.photo, latitudes_of(gallery_deg_G2, prediction)
    map_left, map_width = MARGIN + SIDE + 0.3, WIDTH_IN - 2 * MARGIN - SIDE - 0.3
    map_height, photo_in = height_in(map_width, span), _photo_height(photo)
    figure = new_figure(WIDTH_IN, max(TOP + map_height + 0.75, TOP + photo_in + _list_height(prediction) + 0.2))
    write(figure, MARGIN, 0.4, _shortened(prediction.title, 96), fontsize=14, fontweight="bold")
    if photo is not None:
        _draw_photo(figure, photo, photo_in)
    _list_locations(figure, prediction, TOP + photo_in)
    axes = add_axes(figure, map_left, TOP, map_width, map_height)
    draw_world(axes, background, span)
    low, high = heat_range(prediction.probability_G)
    draw_heat(axes, gallery_deg_G2, prediction.probability_G, low, high)
    _draw_marks(axes, prediction)
    _draw_scale(figure, map_left, TOP + map_height + 0.18, low, high)
    note = f"{len(gallery_deg_G2):,} locations of the gallery; white: the best"
    note += "; star: the truth" if prediction.truth_deg is not None else ""
    write(figure, WIDTH_IN - MARGIN, TOP + map_height + 0.32, note, fontsize=10, color=MUTED, ha="right")
    save_figure(figure, path)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2 - 1]}…{text[-(longest // 2 - 1) :]}"


def _photo_height(photo: Image.Image | None) -> float:
    """In inches, with 0.2 of space below: the photograph fits a box of SIDE by 2.3."""
    if photo is None:
        return 0.0
    return min(SIDE * photo.height / photo.width, 2.3) + 0.2


def _draw_photo(figure: Figure, photo: Image.Image, height: float) -> None:
    box_px = (round(SIDE * figure.dpi), round((height - 0.2) * figure.dpi))
    picture = np.asarray(ImageOps.contain(photo.convert("RGB"), box_px, Image.Resampling.LANCZOS))
    width = picture.shape[1] / figure.dpi
    axes = add_axes(figure, MARGIN, TOP, width, picture.shape[0] / figure.dpi)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(LINE)


def _list_height(prediction: Prediction) -> float:
    return 0.3 + 0.25 * (len(prediction.top_deg_k2) + 2 * (prediction.truth_deg is not None))


def _list_locations(figure: Figure, prediction: Prediction, top: float) -> None:
    right, line = MARGIN + SIDE, top + 0.16
    write(figure, MARGIN, line, "best locations", fontsize=10, color=MUTED)
    write(figure, right, line, "probability", fontsize=10, color=MUTED, ha="right")
    best = zip(prediction.top_deg_k2, prediction.top_probability_k, strict=True)
    for rank, ((lat, lon), probability) in enumerate(best, start=1):
        line += 0.25
        write(figure, MARGIN + 0.16, line, str(rank), fontsize=10, color=MUTED, ha="right")
        write(figure, MARGIN + 0.28, line, location_text(lat, lon), fontsize=10.5)
        write(figure, right, line, probability_text(probability), fontsize=10.5, ha="right")
    if prediction.truth_deg is not None:
        line += 0.33
        write(figure, MARGIN, line, "★", fontsize=12, color=TRUTH_COLOR)
        write(figure, MARGIN + 0.28, line, location_text(*prediction.truth_deg), fontsize=10.5, color=TRUTH_COLOR)


def _draw_marks(axes: Axes, prediction: Prediction) -> None:
    """Ranks, side by side where they are close, each with a line to its location; the truth as a star below."""
    top = prediction.top_deg_k2[:, ::-1]
    least_px = MARK_APART_PT / 72 * cast(Figure, axes.get_figure(root=True)).dpi
    mark_k2 = axes.transData.inverted().transform(marks_apart(axes.transData.transform(top), least_px))
    edge: dict[str, Any] = {"edgecolor": NIGHT, "linewidth": 1}
    for rank, (at, mark) in enumerate(zip(top, mark_k2, strict=True), start=1):
        size, above = (95 if rank == 1 else 70), 6 - rank / 1000
        tie = np.stack([at, mark], axis=1)
        axes.plot(*tie, color=TOP_COLOR, linewidth=0.8, marker=".", markersize=3, zorder=5.5)
        axes.scatter([mark[0]], [mark[1]], s=size, facecolor=TOP_COLOR, zorder=above, clip_on=False, **edge)
        axes.annotate(
            str(rank), mark, color=NIGHT, fontsize=7.5, fontweight="bold", ha="center", va="center_baseline",
            zorder=above + 0.0005,
        )  # fmt: skip
    if prediction.truth_deg is not None:
        lat, lon = prediction.truth_deg
        axes.scatter([lon], [lat], marker="*", s=520, facecolor=TRUTH_COLOR, zorder=5, **edge)


def marks_apart(at_N2: Floats, least: float) -> Floats:
    """(N, 2) positions of marks, at least `least` apart: their own positions, or the nearest free ones around them.

    Earlier marks of the (N, 2) positions `at_N2` have priority.
    """
    angle_A = np.arange(12) * np.pi / 6
    ring_A2 = np.stack([np.cos(angle_A), np.sin(angle_A)], axis=1)
    placed = np.empty((0, 2))
    for at in np.asarray(at_N2):
        radius = 0.0
        while True:
            spots_A2 = at + radius * ring_A2
            nearest_A = np.linalg.norm(spots_A2[:, None] - placed, axis=2).min(axis=1, initial=np.inf)
            if nearest_A.max() >= least:  # true at the latest outside of all others
                break
            radius += least / 4
        placed = np.concatenate([placed, spots_A2[[int(np.argmax(nearest_A >= least))]]])
    return placed


def _draw_scale(figure: Figure, left: float, top: float, low: float, high: float) -> None:
    write(figure, left, top + 0.15, "probability", fontsize=10, color=MUTED)
    axes = add_axes(figure, left + 0.9, top + 0.02, 2.6, 0.15)
    bar = figure.colorbar(ScalarMappable(Normalize(low, high), HEAT_COLORS), cax=axes, orientation="horizontal")
    ticks = decade_ticks(low, high)
    bar.set_ticks(ticks, labels=[power_of_ten(round(tick)) for tick in ticks])
    bar.ax.tick_params(colors=INK, labelsize=10, length=3, pad=2)
    bar.outline.set_edgecolor(LINE)


def draw_texts_png(path: Path, gallery_deg_G2: Floats, texts: Sequence[Prediction], background: Picture) -> None:
    """Two maps in a row, each with its text above and its best location below; arguments as `draw_prediction_png`."""
    columns = 2 if len(texts) > 1 else 1
    span = latitudes_of(gallery_deg_G2, texts[0])
    width = (WIDTH_IN - 2 * MARGIN - GAP * (columns - 1)) / columns
    map_height = height_in(width, span)
    each = HEAD + map_height + HEAD
    figure = new_figure(WIDTH_IN, MARGIN + -(-len(texts) // columns) * each)
    for number, prediction in enumerate(texts):
        left, top = MARGIN + (number % columns) * (width + GAP), MARGIN + (number // columns) * each
        write(figure, left, top + 0.25, prediction.title, fontsize=13, fontweight="bold")
        axes = add_axes(figure, left, top + HEAD, width, map_height)
        draw_world(axes, background, span)
        draw_heat(axes, gallery_deg_G2, prediction.probability_G, *heat_range(prediction.probability_G))
        lat, lon = prediction.top_deg_k2[0]
        axes.scatter([lon], [lat], s=70, facecolor="none", edgecolor="white", linewidth=1.5, zorder=6)
        best = f"best: {location_text(lat, lon)}"
        write(figure, left, top + HEAD + map_height + 0.2, best, fontsize=10, color=MUTED)
    save_figure(figure, path)
