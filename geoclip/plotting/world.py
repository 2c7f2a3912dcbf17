"""World maps on longitude and latitude axes, and figures: sizes, axes in inches, files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from geoclip.errors import DataError
from geoclip.system.files import write_bytes_atomic

Floats = NDArray[np.floating]
Picture = NDArray[np.uint8]

NIGHT, INK, MUTED, LINE = "#0d1520", "#eef2f7", "#9fb0c4", "#33445a"  # maps: dark in every theme
PALETTE = ("#ffc857", "#4fd1c5", "#63b3ff", "#ff7a90", "#c3a6ff", "#a3d977")
SPLIT_COLORS = dict(zip(("train", "val", "test", "test_unseen_cells", "gallery"), PALETTE, strict=False))
DPI = 125
WIDTH_IN = 12.8  # 1600 px: sharp at a README's width, and its text is still legible there

# Light to dark as the error grows, so that it is readable without red and green.
ERROR_COLORS = LinearSegmentedColormap.from_list("error", ["#8ff7d2", "#f6f48b", "#ffb347", "#ff5d73", "#c22fb0"])
HEAT_COLORS = LinearSegmentedColormap.from_list("heat", ["#5a3fae", "#9a2f9a", "#d8446f", "#fb8b4d", "#fde58a"])

HABITED = (-60.0, 85.0)  # south, north: the limits of a map unless a location is outside
WHOLE = (-90.0, 90.0)


def dimmed(background_HW3: Picture) -> Picture:
    """Darker and greyer, towards the night's blue, so that bright dots stand out."""
    color = background_HW3.astype(np.float32)
    grey = color.mean(axis=2, keepdims=True)
    night = np.array([13, 21, 32], dtype=np.float32)
    calm: Picture = (0.42 * (0.55 * color + 0.45 * grey) + 0.62 * night).clip(0, 255).astype(np.uint8)
    return calm


def checked_degrees(gps_deg_N2: Floats, what: str, *, may_be_empty: bool = False) -> NDArray[np.float64]:
    """(N, 2) latitude, longitude as float64.

    Raises:
        DataError: wrong shape, empty, or invalid coordinates; the message names `what` and the row.
    """
    gps_deg = np.asarray(gps_deg_N2, dtype=np.float64)
    if gps_deg.ndim != 2 or gps_deg.shape[1] != 2:
        raise DataError(f"{what}: expected (N, 2) latitude, longitude; got the shape {gps_deg.shape}")
    if not len(gps_deg) and not may_be_empty:
        raise DataError(f"{what}: there is no coordinate to draw")
    on_earth = (np.abs(gps_deg[:, 0]) <= 90) & (np.abs(gps_deg[:, 1]) <= 180)  # False for NaN
    if not on_earth.all():
        row = int(np.argmin(on_earth))
        lat, lon = gps_deg[row]
        raise DataError(f"{what}: row {row} is ({lat}, {lon}): not a latitude and longitude in degrees")
    return gps_deg


def south_north(*locations_deg_N2: Floats) -> tuple[float, float]:
    """The latitudes that a map has to show: the inhabited ones, or all if a location is outside them."""
    lat_N = np.concatenate([deg_N2[:, 0] for deg_N2 in locations_deg_N2])
    return HABITED if ((lat_N >= HABITED[0]) & (lat_N <= HABITED[1])).all() else WHOLE


def height_in(width_in: float, span: tuple[float, float]) -> float:
    """Height of a map with the same scale in latitude and longitude."""
    return width_in * (span[1] - span[0]) / 360


def new_figure(width: float, height: float, color: str = NIGHT) -> Figure:
    """A figure of `width` × `height` inches, without a window."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=color)


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes in inches from the figure's upper left corner."""
    figure_width, figure_height = figure.get_size_inches()
    bottom = figure_height - top - height
    box = (left / figure_width, bottom / figure_height, width / figure_width, height / figure_height)
    return figure.add_axes(box)


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Text; its baseline is `top` inches below the figure's upper edge."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, **{"color": INK, "ha": "left", "va": "baseline", **style})


def draw_world(axes: Axes, background_HW3: Picture, span: tuple[float, float] = WHOLE) -> None:
    """The dimmed background, in degrees, with a faint line every 30°.

    Raises:
        DataError: the background is not a colour picture.
    """
    if background_HW3.ndim != 3 or background_HW3.shape[2] != 3 or background_HW3.dtype != np.uint8:
        raise DataError(f"the background must be (height, width, 3) bytes; got {background_HW3.shape}")
    box = axes.get_window_extent()
    size_px = (round(box.width), round(box.width / 2))  # of the Earth, at the resolution of the figure
    image = Image.fromarray(background_HW3).resize(size_px, Image.Resampling.LANCZOS, reducing_gap=3)
    calm_HW3 = dimmed(np.asarray(image)) // 4 * 4  # fewer shades: invisible, and half the file
    axes.imshow(calm_HW3, extent=(-180, 180, -90, 90), aspect="auto", interpolation="nearest")
    axes.set_xlim(-180, 180)
    axes.set_ylim(*span)
    axes.set_xticks(range(-150, 180, 30))
    axes.set_yticks([lat for lat in range(-60, 90, 30) if span[0] < lat < span[1]])
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="white", alpha=0.07, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_edgecolor(LINE)


def save_figure(figure: Figure, path: Path, colors: int | None = None) -> None:
    """Write a complete PNG or none; with `colors` as a palette of so many, a third of the size."""
    show_names_as_they_are(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    if colors is None:
        image.save(buffer, "PNG", compress_level=7)
    else:  # MAXCOVERAGE, unlike the median cut, keeps the colour of a single dot
        small = image.quantize(colors, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(buffer, "PNG", optimize=True)
    write_bytes_atomic(path, buffer.getvalue())


def power_of_ten(exponent: int) -> str:
    """10⁻⁸ in Unicode: outside log axes, formulas are off."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def show_names_as_they_are(figure: Figure) -> None:
    """Draw every `$` in a text as it is; only the powers of ten on log axes are formulas."""
    of_log_axes = {
        id(tick.label1)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log"
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(id(text) in of_log_axes)
