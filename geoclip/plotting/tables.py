"""Tables of rows as text, Markdown or CSV, and the tables of accuracy and ceilings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from geoclip.errors import DataError
from geoclip.plotting.pages import render
from geoclip.system.console import markdown_text, percent_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text


LATEX = str.maketrans(
    {char: rf"\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"$<$", ">": r"$>$", "±": r"$\pm$", "−": "$-$", "σ": r"$\sigma$", "≤": r"$\leq$"}
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Cell:
    """A text, its style, and a note, such as its interval."""

    text: str
    note: str = ""
    bold: bool = False
    italic: bool = False
    dim: bool = False

    def markdown(self) -> str:
        """`**text** (note)`; every character of the texts is shown as it is."""
        mark = "**" if self.bold else "*" if self.italic and self.text else ""
        note = f" ({markdown_text(self.note)})" if self.note else ""
        return f"{mark}{markdown_text(self.text)}{mark}{note}"

    def latex(self) -> str:
        """The text without its note."""
        text = self.text.translate(LATEX)
        return rf"\textbf{{{text}}}" if self.bold else rf"\textit{{{text}}}" if self.italic and text else text

    def rich(self) -> Text:
        """The note on a line of its own."""
        from rich.text import Text

        style = "bold" if self.bold else "dim" if self.dim else "italic" * self.italic
        parts = [(self.text, style), *([("\n" + self.note, "dim")] if self.note else [])]
        return Text.assemble(*parts)


class Table:
    """Heads and rows of cells or texts, the first column aligned left, the others right.

    A row of one cell is the heading of the rows below it. The title is shown on the console only.
    """

    def __init__(self, heads: Iterable[str], rows: Iterable[Sequence[Any]], title: Any = None) -> None:
        self.heads, self.title = list(heads), title
        self.rows = [[one if isinstance(one, Cell) else Cell(text=one) for one in row] for row in rows]

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [self.heads, ["---", *["---:"] * (len(self.heads) - 1)]]
        lines += [[cell.markdown() for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def latex(self) -> str:
        """A `tabular` with rules of booktabs."""
        rows = [" & ".join(cell.latex() for cell in row) + r" \\" for row in self.rows]
        heads = " & ".join(head.translate(LATEX) for head in self.heads) + r" \\"
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.heads) - 1)}}}"
        return "\n".join([begin, r"\toprule", heads, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""])

    def html(self, kind: str) -> str:
        """A `<table>` of this CSS class, every text escaped."""
        return render("table.html.j2", table=self, kind=kind)

    def rich(self, widths: Sequence[int] = ()) -> RichTable:
        """For `rich.print`; `widths` are the minimum widths of the columns."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=0)
        table.show_edge = False
        for number, (head, width) in enumerate(zip_longest(self.heads, widths)):
            table.add_column(head, justify="right" if number else "left", min_width=width)
        for row in self.rows:
            table.add_row(*(cell.rich() for cell in row))
        return table


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


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
        """The value as text."""
        return percent_text(self.value)

    @property
    def interval(self) -> str:
        """Low to high as text."""
        return f"{percent_text(self.low)}–{percent_text(self.high)}"

    @property
    def ceiling_text(self) -> str:
        """The ceiling as text."""
        return "–" if self.ceiling is None else percent_text(self.ceiling)


@dataclass(kw_only=True, slots=True, frozen=True)
class AccuracyRow:
    """The result of one benchmark; `median` and `score` (the GeoScore) are texts."""

    benchmark: str
    n: int
    shares: tuple[Share, ...]
    median: str
    score: str
    gallery: str
    gallery_size: int | None
    protocol: str  # of distances: sphere or released; empty: an older evaluation, on the sphere
    tta: str  # test-time augmentation

    @property
    def title(self) -> str:
        """The benchmark, and its test-time augmentation unless the name contains it."""
        return self.benchmark + ("" if self.tta in self.benchmark.split("+") else tta_note(self.tta))

    @property
    def source(self) -> str:
        """Gallery, its size, the protocol of distances, and test-time augmentation."""
        size = "" if self.gallery_size is None else f"{self.gallery_size:,} locations"
        parts = (f"gallery {self.gallery}" if self.gallery else "", size, self.protocol)
        return ", ".join(part for part in parts if part) + tta_note(self.tta)


@dataclass(kw_only=True, slots=True, frozen=True)
class AccuracyTable:
    """Rows in the order of the results; all have the same distances."""

    rows: tuple[AccuracyRow, ...]

    def markdown(self) -> str:
        """A GitHub table: a row per benchmark, its ceiling below it."""
        return self._table([Cell(text=row.title) for row in self.rows]).markdown()

    def html(self) -> str:
        """A `<table>`, every text escaped; the gallery is below the benchmark."""
        return self._table([Cell(text=row.benchmark, note=row.source) for row in self.rows]).html("accuracy")

    def _table(self, names: Sequence[Cell]) -> Table:
        sign = "/".join(sorted({sign_of(row.protocol) for row in self.rows}))
        heads = [f"{sign} {share.km} km" for share in self.rows[0].shares]
        rows: list[list[Cell | str]] = []
        for name, row in zip(names, self.rows, strict=True):
            shares = [Cell(text=share.text, note=share.interval, bold=True) for share in row.shares]
            rows.append([name, f"{row.n:,}", *shares, row.median, row.score])
            ceiling = Cell(text="ceiling of the gallery", italic=True)
            rows.append([ceiling, "", *(share.ceiling_text for share in row.shares), "", ""])
        return Table(["benchmark", "images", *heads, "median km", "GeoScore"], rows)

    def rich(self) -> Group:
        """For `rich.print`: one block of lines per benchmark, in 80 columns."""
        from rich.console import Group
        from rich.text import Text

        blocks: list[Any] = []
        for row in self.rows:
            title = Text.assemble((row.benchmark, "bold"), f"  {row.n:,} images", (f"  {row.source}", "dim"))
            heads = [f"{sign_of(row.protocol)} {share.km} km" for share in row.shares]
            shares = [Cell(text=share.text, note=share.interval, bold=True) for share in row.shares]
            ceilings = [Cell(text=share.ceiling_text, dim=True) for share in row.shares]
            rows = [
                [Cell(text="% within", note="95 %"), *shares, f"{row.median} km", row.score],
                [Cell(text="ceiling", dim=True), *ceilings, "", ""],
            ]
            table = Table(["", *heads, "median", "GeoScore"], rows, title)
            blocks += [Text(), table.rich([8, *[9] * len(heads)])]
        return Group(*blocks)


def sign_of(protocol: str) -> str:
    """≤ if an error of exactly a distance is within it, else <."""
    return "≤" if protocol == "released" else "<"


def tta_note(tta: str) -> str:
    """The test-time augmentation as the end of a title; empty without one."""
    return "" if tta == "single" else f", tta={tta}"


def median_text(median_km: float) -> str:
    """At most three significant digits, or all before the point."""
    return f"{median_km:,.0f}" if median_km >= 100 else f"{median_km:.3g}"


def accuracy_table(results: Sequence[Mapping[str, Any]]) -> AccuracyTable:
    """The table of several eval/<benchmark>.json, in their order.

    Raises:
        DataError: there is none, one lacks a key, or they have different distances.
    """
    if not results:
        raise DataError("there is no evaluation to make a table of")
    rows = tuple(_row(result) for result in results)
    distances = {tuple(share.km for share in row.shares) for row in rows}
    if len(distances) > 1:
        raise DataError(f"these evaluations have different distances: {sorted(distances)}")
    return AccuracyTable(rows=rows)


def shares_of(
    percent: Mapping[str, Mapping[str, float]], ceiling: Mapping[str, float] | None = None
) -> tuple[Share, ...]:
    """Shares by increasing distance."""
    return tuple(
        Share(km=km, value=cell["value"], low=cell["low"], high=cell["high"], ceiling=(ceiling or {}).get(km))
        for km, cell in sorted(percent.items(), key=lambda item: float(item[0]))
    )


def _row(result: Mapping[str, Any]) -> AccuracyRow:
    try:
        return AccuracyRow(
            benchmark=str(result.get("evaluation", result["benchmark"])),
            n=result["n"],
            shares=shares_of(result["accuracy_percent"], result.get("ceiling_percent")),
            median=median_text(result["median_km"]),
            score=f"{result['geoscore']:,.0f}",
            gallery=str(result.get("gallery", "")),
            gallery_size=result.get("gallery_size"),
            protocol=str(result.get("protocol", "")),
            tta=str(result.get("tta", "single")),
        )
    except KeyError as error:
        raise DataError(f"evaluation {result.get('benchmark', '?')!r} lacks {error}; evaluate again") from None


def ceiling_table(test_sets: Mapping[str, Mapping[str, Any]], gallery: str) -> RichTable:
    """One row per test set, by its name: n, ceiling_percent (by km as text), median_km, verbatim_in_gallery."""
    distances_km = list(next(iter(test_sets.values()))["ceiling_percent"])
    rows = [
        [
            Cell(text=name, bold=True),
            f"{row['n']:,}",
            *(percent_text(row["ceiling_percent"][km]) for km in distances_km),
            f"{row['median_km']:.2f}",
            f"{row['verbatim_in_gallery']:,} ({percent_text(100 * row['verbatim_in_gallery'] / row['n'])} %)",
        ]
        for name, row in test_sets.items()
    ]
    heads = ["test set", "n", *(f"< {km}" for km in distances_km), "median", "verbatim"]
    return Table(heads, rows, f"{gallery}: % of test locations with a gallery location within … km").rich()
