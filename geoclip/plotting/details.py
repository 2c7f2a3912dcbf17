"""Accuracy by region and by distance to the training data, ranks and confidence: a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from geoclip.errors import DataError
from geoclip.plotting.curves import COLORS, GRID, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.plotting.tables import Cell, Share, Table, accuracy_table, median_text, shares_of, sign_of
from geoclip.plotting.world import WIDTH_IN, add_axes, new_figure, save_figure

if TYPE_CHECKING:
    from rich.console import Group


TRAINING_LABELS = {
    "0-1": "less than 1 km", "1-25": "1 to 25 km", "25-200": "25 to 200 km", "200-750": "200 to 750 km",
    "750-": "750 km and more",
}  # fmt: skip
CONTINENT_LABELS = {"Seven seas (open ocean)": "Ocean islands"}
SHOWN_KM = ("25", "200", "750")
ROW_IN, TOP_IN, LEFT_IN = 0.42, 0.95, 1.75
PERCENT_TICKS = (0, 25, 50, 75, 100)


@dataclass(kw_only=True, slots=True, frozen=True)
class DetailsRow:
    """A group of images, or all images at a rank."""

    label: str
    images: str
    shares: tuple[Share, ...]
    median: str


@dataclass(kw_only=True, slots=True, frozen=True)
class DetailsTable:
    """The details of one benchmark."""

    benchmark: str
    sign: str
    sections: dict[str, list[DetailsRow]]  # by title, each divides the images in one way
    facts: dict[str, str]

    def html(self) -> str:
        """A `<table>` with intervals, every text escaped."""
        heads = [self.benchmark, "images", *(f"{self.sign} {km} km" for km in self._distances_km()), "median"]
        return Table(heads, self._rows(intervals=True)).html("details")

    def rich(self) -> Group:
        """For `rich.print`, in 80 columns, without intervals."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        distances_km = self._distances_km()
        heads = ["% within … km", "images", *(f"{self.sign} {km}" for km in distances_km), "median"]
        facts = RichTable.grid(padding=(0, 2))
        for label, text in self.facts.items():
            facts.add_row(Text(label, style="dim"), text)
        table = Table(heads, self._rows(indent="  ")).rich([20, 7, *[6] * len(distances_km), 9])
        return Group(Text(), table, Text(), facts)

    def _distances_km(self) -> list[str]:
        return [share.km for share in next(iter(self.sections.values()))[0].shares]

    def _rows(self, indent: str = "", *, intervals: bool = False) -> list[list[Cell | str]]:
        rows: list[list[Cell | str]] = []
        for title, section in self.sections.items():
            rows.append([Cell(text=title, dim=True)])
            for row in section:
                shares = [Cell(text=one.text, note=one.interval if intervals else "") for one in row.shares]
                rows.append([indent + row.label, row.images, *shares, row.median])
        return rows


def _groups(result: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By title, the groups of images by label: continents, the largest first, and distances to the training data."""
    continents = sorted(result["by_continent"].items(), key=lambda item: -item[1]["n"])
    found = {"truth in": {CONTINENT_LABELS.get(name, name): group for name, group in continents}}
    if groups := result.get("by_training_km"):
        found["nearest training location"] = {TRAINING_LABELS[name]: group for name, group in groups.items()}
    return found


def details_table(result: Mapping[str, Any]) -> DetailsTable | None:
    """The table of one eval/<benchmark>.json; None where the evaluation has no details."""
    if not result.get("by_continent"):
        return None
    sections = {
        title: [
            DetailsRow(
                label=label,
                images=f"{group['n']:,}",
                shares=shares_of(group["accuracy_percent"]),
                median=f"{median_text(group['median_km']['value'])} km",
            )
            for label, group in groups.items()
        ]
        for title, groups in _groups(result).items()
    }
    sections["the best of"] = [
        DetailsRow(label=f"{rank} guesses", images="", shares=shares_of(shares), median="")
        for rank, shares in result["recall_percent"].items()
        if rank != "1"
    ]
    return DetailsTable(
        benchmark=accuracy_table([result]).rows[0].title,
        sign=sign_of(result.get("protocol", "")),
        sections=sections,
        facts=_facts(result),
    )


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    for key in ("country", "continent"):
        if found := result[key]:
            (share,) = shares_of({"0": found["percent"]})
            facts[f"same {key}"] = f"{share.text} % ({share.interval}) of {found['n']:,} images not at sea"
    nll, chance = result["nll_nats"], result["nll_of_chance_nats"]
    text = f"{nll['value']:.2f} nats ({nll['low']:.2f}–{nll['high']:.2f}); chance {chance:.2f}"
    facts["NLL of the nearest location"] = text
    for km, found in result["calibration"].items():
        difference_pp = 100 * found["overconfidence"]
        sign = "overconfident" if difference_pp > 0 else "underconfident"
        text = f"ECE {100 * found['ece']:.1f} pp, {sign} by {abs(difference_pp):.1f} pp"
        facts[f"confidence within {km} km"] = text
    return facts


def draw_details(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy within 25, 200 and 750 km by continent and by distance to the training data, and reliability.

    Raises:
        DataError: the evaluation has no details.
    """
    if not result.get("by_continent"):
        raise DataError(f"evaluation {result.get('benchmark', '?')!r} has no details; evaluate again")
    panels = _groups(result)
    height = ROW_IN * max(5, *map(len, panels.values()))
    side = height + 0.25
    width = (WIDTH_IN - LEFT_IN * len(panels) - side - 1.35) / len(panels)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.75, PAPER)
    heading(figure, f"Accuracy by group: {result['benchmark']}", right="lines are 95 % intervals over images")
    for number, (title, groups) in enumerate(panels.items()):
        left = LEFT_IN + number * (width + LEFT_IN)
        panel_title(figure, left, TOP_IN - 0.14, title)
        axes = add_axes(figure, left, TOP_IN, width, height)
        _dots(axes, groups)
        if number == 0:  # the legend of all panels
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.11), ncols=3, fontsize=10, frameon=False,
                        labelcolor=INK, handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    left = WIDTH_IN - side - 0.3
    panel_title(figure, left, TOP_IN - 0.14, "reliability")
    _reliability(add_axes(figure, left, TOP_IN, side, height), result["calibration"])
    save_figure(figure, path)


def _dots(axes: Axes, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """A row per group: its shares within each distance, and their intervals."""
    for km, color, shift in zip(SHOWN_KM, COLORS, (-0.2, 0.0, 0.2), strict=False):
        cells = [group["accuracy_percent"][km] for group in groups.values()]
        value_N, low_N, high_N = (np.array([cell[key] for cell in cells]) for key in ("value", "low", "high"))
        y_N = np.arange(len(groups)) + shift
        axes.hlines(y_N, low_N, high_N, color=color, linewidth=2, alpha=0.45)
        axes.plot(value_N, y_N, "o", color=color, markersize=5.5, label=f"within {km} km")
    labels = [f"{label}\n{group['n']:,} image{'s' * (group['n'] > 1)}" for label, group in groups.items()]
    axes.set_yticks(range(len(groups)), labels=labels, color=INK, fontsize=9)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    _percent_axis(axes)


def _reliability(axes: Axes, calibration: Mapping[str, Any]) -> None:
    """Share of images within each distance over the predicted probability."""
    axes.plot((0, 100), (0, 100), color="#aab4c0", linewidth=1)
    for km, of_km in calibration.items():
        x, y = ([100 * one[key] for one in of_km["bins"]] for key in ("confidence", "share"))
        axes.plot(x, y, "-o", color=COLORS[SHOWN_KM.index(km)], markersize=4, linewidth=1.6)
    axes.set_ylim(-3, 103)
    axes.set_yticks(PERCENT_TICKS, labels=[f"{tick} %" for tick in PERCENT_TICKS])
    axes.set_xlabel("predicted probability", color=MUTED, fontsize=10)
    axes.set_ylabel("share of images", color=MUTED, fontsize=10, labelpad=1)
    _percent_axis(axes)
    axes.grid(color=GRID, linewidth=0.8)


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(-3, 103)
    axes.set_xticks(PERCENT_TICKS, labels=[f"{tick} %" for tick in PERCENT_TICKS])
    plain(axes, grid="x")
