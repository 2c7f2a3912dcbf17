"""What each scale of a location encoder contributes: a row per scale, from the whole Earth to a town."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoclip.drawing.curves import INK, MUTED, PAPER
from geoclip.drawing.study_axes import save_small
from geoclip.drawing.world import WIDTH_IN, add_axes, new_figure, write
from geoclip.errors import DataError
from geoclip.evaluation.scale_similarity import ScaleSimilarity

COLORS = "magma"
LEFT_IN, RIGHT_IN, TOP_IN, GAP_IN = 1.25, 1.0, 1.25, 0.16


def draw_scales(zooms: Sequence[ScaleSimilarity], place: str, path: Path) -> None:
    """Cosine with the place in the middle: columns zoom in, rows are the scales and all of them together.

    A row has colours of its own, the same in all its maps, so that bright means near in whatever this scale can tell.

    Args:
        zooms: of one encoder around one point, from wide to narrow.
        place: what the point is called.
        path: the PNG to write.

    Raises:
        DataError: no zoom, or zooms of different encoders.
    """
    if not zooms or any(zoom.sigmas != zooms[0].sigmas for zoom in zooms):
        raise DataError("the maps of a figure of scales must be of one encoder, and at least one")
    ratios = [zoom.all_HW.shape[1] / zoom.all_HW.shape[0] for zoom in zooms]
    height = min(2.6, (WIDTH_IN - LEFT_IN - RIGHT_IN - GAP_IN * (len(zooms) - 1)) / sum(ratios))
    labels = [f"σ = {sigma:g}" for sigma in zooms[0].sigmas]
    labels += ["all scales"] if len(labels) > 1 else []
    figure = new_figure(WIDTH_IN, TOP_IN + len(labels) * (height + GAP_IN) + 0.15, PAPER)
    write(
        figure,
        0.3,
        0.4,
        f"What each scale tells apart around {place}",
        color=INK,
        fontsize=14,
        fontweight="bold",
    )
    text = "cosine of its embedding with that of the point at the cross; each row has colours of its own"
    write(figure, 0.3, 0.7, text, color=MUTED, fontsize=10.5)
    for row, label in enumerate(labels):
        maps = [_layers(zoom)[row] for zoom in zooms]
        norm = Normalize(min(float(one.min()) for one in maps), max(float(one.max()) for one in maps))
        left, top = LEFT_IN, TOP_IN + row * (height + GAP_IN)
        write(figure, 0.3, top + height / 2, label, color=INK, fontsize=12, fontweight="bold")
        if row < len(zooms[0].sigmas):
            length = f"length {zooms[0].norms_M[row]:.2g}"
            write(figure, 0.3, top + height / 2 + 0.22, length, color=MUTED, fontsize=9.5)
        for zoom, one, ratio in zip(zooms, maps, ratios, strict=True):
            axes = add_axes(figure, left, top, height * ratio, height)
            _map(axes, zoom, one, norm)
            if row == 0:
                name = "the whole Earth" if zoom.extent_km is None else f"{zoom.extent_km:,g} km across"
                axes.set_title(name, color=MUTED, fontsize=10.5, loc="left", pad=6)
            left += height * ratio + GAP_IN
        _bar(figure, left + 0.02, top, height, norm)
    save_small(figure, path, colors=192)  # noise is costly, and its shades say nothing


def _layers(zoom: ScaleSimilarity) -> list[NDArray[np.float32]]:
    """The scales' maps, then that of all; of one scale alone the two are the same."""
    return [*zoom.branches_MHW, zoom.all_HW]


def _map(axes: Axes, zoom: ScaleSimilarity, cosine_HW: NDArray[np.float32], norm: Normalize) -> None:
    axes.imshow(cosine_HW, cmap=COLORS, norm=norm, aspect="auto", interpolation="nearest")
    height, width = cosine_HW.shape
    if zoom.land_HW.any() and not zoom.land_HW.all():
        axes.contour(zoom.land_HW.astype(float), levels=[0.5], colors="white", linewidths=0.5, alpha=0.55)
    x, y = 0.5, 0.5
    if zoom.extent_km is None:
        x, y = 0.5 + zoom.center_deg[1] / 360, 0.5 - zoom.center_deg[0] / 180
    for color, width_pt in (("black", 2.6), ("white", 1.2)):  # seen on any colour
        axes.plot(x * width - 0.5, y * height - 0.5, "+", color=color, markersize=9, markeredgewidth=width_pt)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bar(figure: Figure, left: float, top: float, height: float, norm: Normalize) -> None:
    bar = figure.colorbar(ScalarMappable(norm, COLORS), cax=add_axes(figure, left, top, 0.13, height))
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    bar.set_ticks([low + share * (high - low) for share in (0.06, 0.35, 0.65, 0.94)])
    bar.ax.yaxis.set_major_formatter(lambda value, _position: f"{value:.2f}")
    bar.ax.tick_params(colors=MUTED, labelsize=9, length=0, pad=4)
    bar.outline.set_visible(False)
