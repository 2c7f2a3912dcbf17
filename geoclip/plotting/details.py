"""Details of an evaluation as a table and as a figure."""

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


@dataclass(kw_only=True, slots=True, frozen=True)
class DetailsRow:
    """Some of the images, or all of them asked otherwise."""

    label: str
    images: str
    shares: tuple[Share, ...]
    median: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Section:
    """Rows that divide the images in one way."""

    title: str
    rows: tuple[DetailsRow, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class DetailsTable:
    """One benchmark's."""

    benchmark: str
    sign: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def distances_km(self) -> tuple[str, ...]:
        """The distances of the columns."""
        return tuple(share.km for share in self.sections[0].rows[0].shares)

    def html(self) -> str:
        """A `<table>`, every text escaped, with intervals."""
        heads = [self.benchmark, "images", *(f"{self.sign} {km} km" for km in self.distances_km), "median"]
        return Table(heads, self._rows(intervals=True)).html("details")

    def rich(self) -> Group:
        """For `rich.print`: values alone, within 80 columns; the JSON has their intervals."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        heads = ["% within … km", "images", *(f"{self.sign} {km}" for km in self.distances_km), "median"]
        table = Table(heads, self._rows(indent="  "))
        facts = RichTable.grid(padding=(0, 2))
        for label, text in self.facts:
            facts.add_row(Text(label, style="dim"), text)
        return Group(Text(), table.rich([20, 7, *[6] * len(self.distances_km), 9]), Text(), facts)

    def _rows(self, indent: str = "", *, intervals: bool = False) -> list[list[Cell | str]]:
        rows: list[list[Cell | str]] = []
        for section in self.sections:
            rows.append([Cell(text=section.title, dim=True)])
            for row in section.rows:
                shares = [Cell(text=one.text, note=one.interval if intervals else "") for one in row.shares]
                rows.append([indent + row.label, row.images, *shares, row.median])
        return rows


def details_table(result: Mapping[str, Any]) -> DetailsTable | None:
    """The table of what one `eval/<benchmark>.json` holds; None of an evaluation that has no details."""
    if not result.get("by_continent"):
        return None
    sections = [Section(title="truth in", rows=_groups(result["by_continent"], CONTINENT_LABELS, by_size=True))]
    if result.get("by_training_km"):
        rows = _groups(result["by_training_km"], TRAINING_LABELS)
        sections.append(Section(title="nearest training place", rows=rows))
    sections.append(Section(title="the best of", rows=_ranks(result["recall_percent"])))
    return DetailsTable(
        benchmark=accuracy_table([result]).rows[0].title,
        sign=sign_of(result.get("protocol", "")),
        sections=tuple(sections),
        facts=_facts(result),
    )


def _groups(groups: Mapping[str, Any], labels: Mapping[str, str], *, by_size: bool = False) -> tuple[DetailsRow, ...]:
    order = sorted(groups, key=lambda name: -groups[name]["n"]) if by_size else list(groups)
    return tuple(
        DetailsRow(
            label=labels.get(name, name),
            images=f"{groups[name]['n']:,}",
            shares=shares_of(groups[name]["accuracy_percent"]),
            median=f"{median_text(groups[name]['median_km']['value'])} km",
        )
        for name in order
    )


def _ranks(recall: Mapping[str, Any]) -> tuple[DetailsRow, ...]:
    return tuple(
        DetailsRow(label=f"{rank} guesses", images="", shares=shares_of(shares), median="")
        for rank, shares in recall.items()
        if rank != "1"
    )


def _facts(result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = []
    for key in ("country", "continent"):
        if found := result[key]:
            (share,) = shares_of({"0": found["percent"]})
            facts.append((f"same {key}", f"{share.text} % ({share.interval}) of {found['n']:,} images not at sea"))
    nll = result["nll_nats"]
    text = f"{nll['value']:.2f} nats ({nll['low']:.2f}–{nll['high']:.2f}); chance {result['nll_of_chance_nats']:.2f}"
    facts.append(("the place nearest to the truth", text))
    for km, found in result["calibration"].items():
        off = 100 * found["overconfidence"]
        mood = "too sure" if off > 0 else "too modest"
        text = f"error {100 * found['ece']:.1f} points; {mood} by {abs(off):.1f}"
        facts.append((f"confidence within {km} km", text))
    return tuple(facts)


SHOWN_KM = ("25", "200", "750")
ROW_IN, TOP_IN, LEFT_IN = 0.42, 0.95, 1.75


def draw_details(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy within 25, 200 and 750 km by continent and by distance to the training places, and reliability.

    Args:
        result: what eval/<benchmark>.json holds.
        path: the PNG to write.

    Raises:
        DataError: it has no details.
    """
    if not result.get("by_continent"):
        raise DataError(f"evaluation {result.get('benchmark', '?')!r} holds no details; evaluate again")
    continents = sorted(result["by_continent"].items(), key=lambda item: -item[1]["n"])
    panels = [("truth in", [(CONTINENT_LABELS.get(name, name), row) for name, row in continents])]
    if result.get("by_training_km"):
        rows = [(TRAINING_LABELS[name], row) for name, row in result["by_training_km"].items()]
        panels.append(("nearest training place", rows))
    height = ROW_IN * max(5, *(len(rows) for _, rows in panels))
    side = height + 0.25
    width = (WIDTH_IN - LEFT_IN * len(panels) - side - 1.35) / len(panels)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.75, PAPER)
    title = f"Where it is right: {result['benchmark']}"
    heading(figure, title, right="lines are 95 % intervals over images")
    for number, (title, rows) in enumerate(panels):
        left = LEFT_IN + number * (width + LEFT_IN)
        panel_title(figure, left, TOP_IN - 0.14, title)
        axes = add_axes(figure, left, TOP_IN, width, height)
        _dots(axes, rows)
        if number == 0:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.11), ncols=3, fontsize=10, frameon=False,
                        labelcolor=INK, handletextpad=0.2, columnspacing=1.2)  # of all panels  # fmt: skip
    left = WIDTH_IN - side - 0.3
    panel_title(figure, left, TOP_IN - 0.14, "as often as it says")
    _reliability(add_axes(figure, left, TOP_IN, side, height), result["calibration"])
    save_figure(figure, path)


def _dots(axes: Axes, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
    """A line of dots for every group, at its shares."""
    for km, color, shift in zip(SHOWN_KM, COLORS, (-0.2, 0.0, 0.2), strict=False):
        cells = [row["accuracy_percent"][km] for _, row in rows]
        value_N, low_N, high_N = (np.array([cell[key] for cell in cells]) for key in ("value", "low", "high"))
        y_N = np.arange(len(rows)) + shift
        axes.hlines(y_N, low_N, high_N, color=color, linewidth=2, alpha=0.45)
        axes.plot(value_N, y_N, "o", color=color, markersize=5.5, label=f"within {km} km")
    axes.set_yticks(
        range(len(rows)),
        labels=[f"{label}\n{row['n']:,} image{'s' * (row['n'] > 1)}" for label, row in rows],
        color=INK,
        fontsize=9,
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _percent_axis(axes)


def _reliability(axes: Axes, calibration: Mapping[str, Any]) -> None:
    """What came true over what was said, for every distance that confidence was asked for."""
    axes.plot((0, 100), (0, 100), color="#aab4c0", linewidth=1)
    for km, of_km in calibration.items():
        said, true = ([100 * one[key] for one in of_km["bins"]] for key in ("confidence", "share"))
        axes.plot(said, true, "-o", color=COLORS[SHOWN_KM.index(km)], markersize=4, linewidth=1.6)
    axes.set_ylim(-3, 103)
    axes.set_yticks((0, 25, 50, 75, 100), labels=["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("said: the model's probability", color=MUTED, fontsize=10)
    axes.set_ylabel("came true", color=MUTED, fontsize=10, labelpad=1)
    _percent_axis(axes)
    axes.grid(color=GRID, linewidth=0.8)


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(-3, 103)
    axes.set_xticks((0, 25, 50, 75, 100), labels=["0 %", "25 %", "50 %", "75 %", "100 %"])
    plain(axes, grid="x")
