"""Maps of the locations of every split, and of the errors of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoclip.errors import DataError
from geoclip.geo.geodesy import unit_vectors
from geoclip.plotting.world import (
    ERROR_COLORS,
    INK,
    LINE,
    MUTED,
    PALETTE,
    SPLIT_COLORS,
    WIDTH_IN,
    Floats,
    Picture,
    add_axes,
    checked_degrees,
    draw_world,
    height_in,
    new_figure,
    save_figure,
    south_north,
    write,
)
from geoclip.system.console import percent_text

MARGIN, GAP, HEADING = 0.3, 0.25, 0.42  # inches
ERROR_TICKS_KM = (1, 25, 200, 750, 2500, 20_000)
FAR_KM = 750.0
MAX_LINES = 300


def draw_distribution(splits: Mapping[str, Floats], background: Picture, path: Path) -> None:
    """One map per split, below its name and count; dense dots are whiter. With an odd number the first map is wide.

    A split is (N, 2) latitude, longitude in degrees; the background (height, width, 3), equirectangular.

    Raises:
        DataError: no split, an empty one, or invalid coordinates.
    """
    if not splits:
        raise DataError("there is no split to draw")
    locations = {name: checked_degrees(gps_deg, f"split {name!r}") for name, gps_deg in splits.items()}
    span = south_north(*locations.values())
    full = WIDTH_IN - 2 * MARGIN
    half = (full - GAP) / 2
    wide_first = len(locations) % 2 == 1
    rows_of_two = len(locations) // 2
    wide_height = (HEADING + height_in(full, span)) if wide_first else 0
    row_height = HEADING + height_in(half, span)
    figure = new_figure(WIDTH_IN, wide_height + rows_of_two * row_height + MARGIN)
    for number, (name, gps_deg_N2) in enumerate(locations.items()):
        color = SPLIT_COLORS.get(name, PALETTE[number % len(PALETTE)])
        if wide_first and number == 0:
            left, top, width = MARGIN, 0.0, full
        else:
            row, column = divmod(number - wide_first, 2)
            left, top, width = MARGIN + column * (half + GAP), wide_height + row * row_height, half
        write(figure, left, top + 0.31, "●", color=color, fontsize=12)
        write(figure, left + 0.2, top + 0.31, name, fontsize=13, fontweight="bold")
        write(figure, left + width, top + 0.31, f"{len(gps_deg_N2):,} locations", fontsize=12, color=MUTED, ha="right")
        axes = add_axes(figure, left, top + HEADING, width, height_in(width, span))
        draw_world(axes, background, span)
        _draw_dots(axes, gps_deg_N2, color, width)
    save_figure(figure, path)


def _draw_dots(axes: Axes, gps_deg_N2: Floats, color: str, width_in: float) -> None:
    """Few dots are large, many are small. The more dots in a cell of 0.5°, the whiter they are, and the later drawn."""
    count = len(gps_deg_N2)
    size = float(np.clip(6 * (2000 / count) ** 0.35, 1.3, 14)) * (width_in / WIDTH_IN + 0.25)
    _, cell_N, cell_count = np.unique(np.floor(gps_deg_N2 * 2), axis=0, return_inverse=True, return_counts=True)
    crowd_N = np.log1p(cell_count[cell_N.reshape(-1)] - 1) / np.log(500)
    order = np.argsort(crowd_N, kind="stable")
    white_N1 = 0.7 * crowd_N[order, None].clip(0, 1)
    color_N3 = (1 - white_N1) * np.array(to_rgb(color)) + white_N1
    axes.scatter(gps_deg_N2[order, 1], gps_deg_N2[order, 0], s=size, c=color_N3, alpha=0.7, linewidths=0, zorder=3)


def draw_predictions(
    truth_deg_N2: Floats, guess_deg_N2: Floats, error_km_N: Floats, background: Picture, path: Path, *, title: str = ""
) -> None:
    """The true location of every image, coloured by its error; beyond 750 km a line leads to the prediction.

    Truth and prediction are latitude, longitude in degrees; the background is (height, width, 3), equirectangular.

    Raises:
        DataError: nothing to draw, unequal lengths, invalid coordinates, or an error that is negative or not finite.
    """
    truth = checked_degrees(truth_deg_N2, "true locations")
    guess = checked_degrees(guess_deg_N2, "predicted locations")
    error_km = np.asarray(error_km_N, dtype=np.float64)
    if not len(truth) == len(guess) == len(error_km):
        raise DataError(
            f"{len(truth)} true locations, {len(guess)} predictions and {len(error_km)} errors do not match"
        )
    if not (np.isfinite(error_km) & (error_km >= 0)).all():
        raise DataError("predictions: an error is negative or not a finite number of kilometres")
    span = south_north(truth, guess)
    width = WIDTH_IN - 2 * MARGIN
    height = height_in(width, span)
    figure = new_figure(WIDTH_IN, 0.75 + height + 0.75)
    write(figure, MARGIN, 0.34, title or "predictions", fontsize=14, fontweight="bold")
    write(figure, MARGIN, 0.62, _summary(error_km), fontsize=11.5, color=MUTED)
    axes = add_axes(figure, MARGIN, 0.75, width, height)
    draw_world(axes, background, span)
    norm = LogNorm(vmin=1, vmax=20_015)
    far = np.flatnonzero(error_km > FAR_KM)
    shown = far[np.linspace(0, len(far) - 1, MAX_LINES).astype(int)] if len(far) > MAX_LINES else far
    _draw_lines(axes, truth[shown], guess[shown], ERROR_COLORS(norm(error_km[shown])))
    order = np.argsort(error_km)  # the largest, which are few, on top
    axes.scatter(
        truth[order, 1], truth[order, 0], c=error_km[order].clip(1), cmap=ERROR_COLORS, norm=norm,
        s=float(np.clip(20_000 / len(truth), 5, 34)), linewidths=0.3, edgecolors="#0d1520", zorder=4,
    )  # fmt: skip
    _draw_scale(figure, 0.75 + height + 0.2, norm)
    note = f"lines: from the true location to a prediction more than {FAR_KM:,.0f} km away"
    note += f" ({len(shown)} of {len(far):,})" if len(shown) < len(far) else ""
    write(figure, WIDTH_IN - MARGIN, 0.75 + height + 0.36, note, fontsize=10.5, color=MUTED, ha="right")
    save_figure(figure, path)


def _summary(error_km_N: Floats) -> str:
    near, middle = (f"{percent_text(100 * float((error_km_N <= km).mean()))} %" for km in (200, 750))
    median_km = float(np.median(error_km_N))
    return (
        f"{len(error_km_N):,} images, each at its true location: {near} within 200 km, {middle} within 750 km, "
        f"median error {median_km:,.{0 if median_km >= 10 else 1}f} km"
    )


def _draw_scale(figure: Figure, top: float, norm: LogNorm) -> None:
    """The colours of the errors, in kilometres."""
    write(figure, MARGIN, top + 0.16, "error, km", fontsize=10.5, color=MUTED)
    axes = add_axes(figure, MARGIN + 0.85, top + 0.03, 4.6, 0.15)
    bar = figure.colorbar(ScalarMappable(norm, ERROR_COLORS), cax=axes, orientation="horizontal")
    bar.set_ticks(ERROR_TICKS_KM, labels=[f"{km:,}" for km in ERROR_TICKS_KM])
    bar.ax.minorticks_off()
    bar.ax.tick_params(colors=INK, labelsize=10, length=3, pad=2)
    bar.outline.set_edgecolor(LINE)


def _draw_lines(axes: Axes, truth_deg_N2: Floats, guess_deg_N2: Floats, color_N4: Floats) -> None:
    """Great circles; one that crosses the antimeridian is drawn at both edges of the map."""
    lines, colors = [], []
    for lonlat_P2, color in zip(great_circles(truth_deg_N2, guess_deg_N2), color_N4, strict=True):
        for shift_deg in (-360, 0, 360):
            lon = lonlat_P2[:, 0] + shift_deg
            if lon.min() <= 180 and lon.max() >= -180:
                lines.append(np.column_stack((lon, lonlat_P2[:, 1])))
                colors.append(color)
    alpha = 0.55 if len(truth_deg_N2) < 100 else 0.35
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.8, alpha=alpha, zorder=3), autolim=False)


def great_circles(a_deg_N2: Floats, b_deg_N2: Floats, points: int = 64) -> NDArray[np.float64]:
    """(N, points, 2) longitude, latitude along the shortest paths; longitude is continuous and may exceed ±180°."""
    a_N3, b_N3 = (unit_vectors(torch.from_numpy(np.array(deg_N2))).numpy() for deg_N2 in (a_deg_N2, b_deg_N2))
    angle_N = np.arctan2(np.linalg.norm(np.cross(a_N3, b_N3), axis=1), (a_N3 * b_N3).sum(axis=1))
    angle_N11 = angle_N[:, None, None].clip(1e-9)  # not 0, where the weights would all be 0
    share_P1 = np.linspace(0, 1, points)[:, None]
    path_NP3 = np.sin((1 - share_P1) * angle_N11) * a_N3[:, None] + np.sin(share_P1 * angle_N11) * b_N3[:, None]
    lon = np.unwrap(np.degrees(np.arctan2(path_NP3[..., 1], path_NP3[..., 0])), period=360, axis=1)
    lat = np.degrees(np.arctan2(path_NP3[..., 2], np.hypot(path_NP3[..., 0], path_NP3[..., 1])))
    return np.stack((lon, lat), axis=-1)
