"""What all charts share: their colours on white paper, plain axes, and the lines above the panels."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoclip.drawing.world import WIDTH_IN, write

PAPER, INK, MUTED, GRID = "#ffffff", "#1b2733", "#5d6b7a", "#e3e8ee"
COLORS = ("#1f6fc4", "#d9480f", "#0b8a6d", "#8a3ffc", "#b5179e", "#946200")


def plain(axes: Axes, *, grid: Literal["both", "x", "y"] = "both") -> None:
    """White, a faint grid, no tick marks, only the lower spine; none where the grid is upright alone."""
    axes.set_facecolor(PAPER)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=10, length=0, pad=5, which="both")
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom" and grid != "x")
        spine.set_edgecolor("#aab4c0")


def heading(figure: Figure, title: str, text: str = "", right: str = "") -> None:
    """The figure's title, a line of explanation below it, and another at the right edge."""
    write(figure, 0.3, 0.4, title, color=INK, fontsize=14, fontweight="bold")
    write(figure, 0.3, 0.7, text, color=MUTED, fontsize=10.5)
    write(figure, WIDTH_IN - 0.3, 0.4, right, color=MUTED, fontsize=10.5, ha="right")


def panel_title(figure: Figure, left: float, top: float, text: str) -> None:
    """The bold line above a panel, in inches from the figure's upper left corner."""
    write(figure, left, top, text, color=INK, fontsize=12, fontweight="bold")
