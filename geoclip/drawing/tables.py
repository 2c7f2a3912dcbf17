"""The evaluation table: for the console, for Markdown and for a page, all from the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoclip.drawing.pages import render
from geoclip.errors import DataError

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(kw_only=True, slots=True, frozen=True)
class Share:
    """Share of images within a distance, in percent, with its 95 % interval and the gallery's ceiling."""

    km: str
    value: float
    low: float
    high: float
    ceiling: float | None

    @property
    def text(self) -> str:
        """The value as it is printed."""
        return _percent(self.value)

    @property
    def interval(self) -> str:
        """Low to high as it is printed."""
        return f"{_percent(self.low)}–{_percent(self.high)}"

    @property
    def ceiling_text(self) -> str:
        """The ceiling as it is printed."""
        return "–" if self.ceiling is None else _percent(self.ceiling)


@dataclass(kw_only=True, slots=True, frozen=True)
class AccuracyRow:
    """One benchmark's result."""

    benchmark: str
    n: int
    shares: tuple[Share, ...]
    median_km: float
    geoscore: float
    gallery: str
    gallery_size: int | None
    protocol: str = ""  # of distances: sphere, released; empty: an older evaluation, on the sphere
    tta: str = ""  # as tta=ten_crop; empty: one view of each picture

    @property
    def median(self) -> str:
        """The median error as it is printed: three digits are all that it has."""
        return median_text(self.median_km)

    @property
    def score(self) -> str:
        """The GeoScore as it is printed."""
        return f"{self.geoscore:,.0f}"

    @property
    def source(self) -> str:
        """The gallery, its size, the protocol of distances, and the crops of each picture if there were several."""
        size = "" if self.gallery_size is None else f"{self.gallery_size:,} places"
        parts = (f"gallery {self.gallery}" if self.gallery else "", size, self.protocol, self.tta)
        return ", ".join(part for part in parts if part)


@dataclass(kw_only=True, slots=True, frozen=True)
class AccuracyTable:
    """Rows in the order of the results; all share the same distances."""

    rows: tuple[AccuracyRow, ...]

    @property
    def distances_km(self) -> tuple[str, ...]:
        """The distances of the columns."""
        return tuple(share.km for share in self.rows[0].shares)

    @property
    def sign(self) -> str:
        """Whether an error of exactly a distance counts: < or ≤, as the rows' protocol has it, or both."""
        return "/".join(sorted({sign_of(row.protocol) for row in self.rows}))

    def markdown(self) -> str:
        """A GitHub table: a row per benchmark, its ceiling below it."""
        head = [
            "benchmark",
            "images",
            *(f"{self.sign} {km} km" for km in self.distances_km),
            "median km",
            "GeoScore",
        ]
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for row in self.rows:
            shares = [f"**{share.text}** ({share.interval})" for share in row.shares]
            lines.append([row.benchmark, f"{row.n:,}", *shares, row.median, row.score])
            lines.append(
                ["*ceiling of the gallery*", "", *(share.ceiling_text for share in row.shares), "", ""]
            )
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def html(self) -> str:
        """A `<table>`, every text escaped."""
        return render("accuracy_table.html.j2", table=self)

    def rich(self) -> Group:
        """For `rich.print`: one block of lines per benchmark, within 80 columns."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        blocks: list[Text | Table] = []
        for row in self.rows:
            title = Text.assemble((row.benchmark, "bold"), f"  {row.n:,} images", (f"  {row.source}", "dim"))
            table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=0)
            table.show_edge = False
            table.add_column("", style="dim", min_width=8)
            for share in row.shares:
                table.add_column(f"{sign_of(row.protocol)} {share.km} km", justify="right", min_width=9)
            table.add_column("median", justify="right")
            table.add_column("GeoScore", justify="right")
            shares = [Text(share.text, style="bold") for share in row.shares]
            table.add_row("% within", *shares, f"{row.median} km", row.score)
            table.add_row("95 %", *(Text(share.interval, style="dim") for share in row.shares))
            table.add_row("ceiling", *(Text(share.ceiling_text, style="dim") for share in row.shares))
            blocks += [Text(), table]
        return Group(*blocks)


def sign_of(protocol: str) -> str:
    """Of a distance's column: whether an error of exactly that distance counts."""
    return "≤" if protocol == "released" else "<"


def median_text(median_km: float) -> str:
    """Three digits are all that a median has."""
    return f"{median_km:,.0f}" if median_km >= 100 else f"{median_km:.3g}"


def _percent(value: float) -> str:
    return "100" if value >= 99.95 else f"{value:.1f}"


def accuracy_table(results: Sequence[Mapping[str, Any]]) -> AccuracyTable:
    """The table of what `eval/<benchmark>.json` files hold.

    Args:
        results: their contents, in the order to show.

    Raises:
        DataError: there is none, one lacks a key, or they were measured at different distances.
    """
    if not results:
        raise DataError("there is no evaluation to make a table of")
    rows = tuple(_row(result) for result in results)
    distances = {tuple(share.km for share in row.shares) for row in rows}
    if len(distances) > 1:
        raise DataError(f"these evaluations were measured at different distances: {sorted(distances)}")
    return AccuracyTable(rows=rows)


def shares_of(
    percent: Mapping[str, Mapping[str, float]], ceiling: Mapping[str, float] | None = None
) -> tuple[Share, ...]:
    """Shares by rising distance."""
    return tuple(
        Share(km=km, value=cell["value"], low=cell["low"], high=cell["high"], ceiling=(ceiling or {}).get(km))
        for km, cell in sorted(percent.items(), key=lambda item: float(item[0]))
    )


def _row(result: Mapping[str, Any]) -> AccuracyRow:
    try:
        shares = shares_of(result["accuracy_percent"], result.get("ceiling_percent", {}))
        return AccuracyRow(
            benchmark=str(result.get("evaluation", result["benchmark"])),
            n=result["n"],
            shares=shares,
            median_km=result["median_km"],
            geoscore=result["geoscore"],
            gallery=str(result.get("gallery", "")),
            gallery_size=result.get("gallery_size"),
            protocol=str(result.get("protocol", "")),
            tta="" if result.get("tta", "single") == "single" else f"tta={result['tta']}",
        )
    except KeyError as error:
        raise DataError(
            f"evaluation {result.get('benchmark', '?')!r} lacks {error}; evaluate again"
        ) from None
