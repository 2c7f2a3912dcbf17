"""A table of rows, formatted for the console, Markdown, LaTeX, HTML and CSV; other modules only name the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoclip.console import markdown_text
from geoclip.drawing.pages import render

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

LATEX = str.maketrans(
    {char: rf"\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"$<$", ">": r"$>$", "±": r"$\pm$", "−": "$-$", "σ": r"$\sigma$", "≤": r"$\leq$"}
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Cell:
    """A text, how it stands out, and a note to it, such as its interval."""

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
    """Heads and rows of cells. A row of one cell is a heading of the rows below it.

    Args:
        heads: of the columns; the first is aligned left, the others right.
        rows: cells, or plain texts.
        title: above the table on the console.
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
        """A tabular of booktabs."""
        rows = [" & ".join(cell.latex() for cell in row) + r" \\" for row in self.rows]
        heads = " & ".join(head.translate(LATEX) for head in self.heads) + r" \\"
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.heads) - 1)}}}"
        return "\n".join([begin, r"\toprule", heads, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""])

    def html(self, kind: str) -> str:
        """A `<table>` of this CSS class, every text escaped."""
        return render("table.html.j2", table=self, kind=kind)

    def rich(self, widths: Sequence[int] = ()) -> RichTable:
        """For `rich.print`; `widths` are least ones, by column."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=0)
        table.show_edge = False
        for number, head in enumerate(self.heads):
            least = widths[number] if number < len(widths) else None
            table.add_column(head, justify="right" if number else "left", min_width=least)
        for row in self.rows:
            table.add_row(*(cell.rich() for cell in row))
        return table


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV; what is None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
