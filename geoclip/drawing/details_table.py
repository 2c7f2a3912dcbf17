"""The evaluation's second table: by continent, by distance to the training places, by guesses, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoclip.drawing.table_format import Cell, Table
from geoclip.drawing.tables import Share, accuracy_table, median_text, shares_of, sign_of

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
