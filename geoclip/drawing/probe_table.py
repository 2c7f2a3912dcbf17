"""The probe's table, for the console and for Markdown, from what probe.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoclip.drawing.table_format import Cell, Table
from geoclip.errors import DataError
from geoclip.evaluation.significance import RESAMPLES
from geoclip.percent import percent_text

if TYPE_CHECKING:
    from rich.console import Group

TITLES = {"land_sea": "land or sea", "continent": "continent", "country": "country", "elevation": "elevation"}
MEASURES = {"accuracy": "accuracy, %", "r2": "R²", "macro_f1": "macro-F1, %", "rmse": "RMSE, m"}
FIRST, SECOND = ("accuracy", "r2"), ("macro_f1", "rmse")  # one table for each


@dataclass(kw_only=True, slots=True, frozen=True)
class ProbeTable:
    """The result of one probe; best values are found by their point estimate."""

    result: Mapping[str, Any]

    @property
    def features(self) -> list[str]:
        """What was probed, in its order."""
        return list(next(iter(self.result["tasks"].values()))["features"])

    def markdown(self) -> str:
        """Two GitHub tables, then how they were measured."""
        return "\n".join([*(table.markdown() for table in self._tables()), self.caption() + "\n"])

    def rich(self) -> Group:
        """For `rich.print`: values with their intervals below."""
        from rich.console import Group

        return Group(*(table.rich() for table in self._tables("\n")), self.caption())

    def _tables(self, separator: str = ": ") -> list[Table]:
        tables = []
        for measures in (FIRST, SECOND):
            columns = self._columns(measures)
            heads = [title.replace(": ", separator) for title, _, _ in columns]
            rows = [
                [name, self._dims(name), *(_cell(self.result, task, key, name) for _, task, key in columns)]
                for name in self.features
            ]
            tables.append(Table(["features", "dims", *heads], rows))
        return tables

    def caption(self) -> str:
        """Seed, places, cells, and what the intervals are."""
        sizes = [
            f"{TITLES[task]}: {row['n']['train'] + row['n']['validation']:,} places of "
            f"{row['cells']['train'] + row['cells']['validation']:,} cells to fit, {row['n']['test']:,} of "
            f"{row['cells']['test']:,} to test"
            + (f", {row['classes']} classes" if row["classes"] else "")
            + (f", {row['left_out_of_test']:,} left out" if row["left_out_of_test"] else "")
            for task, row in self.result["tasks"].items()
        ]
        return (
            f"Seed {self.result['seed']}; {self.result['places']:,} places on the sphere and as many on land; "
            "linear heads; 5° cells that hold test places hold no other. "
            f"{'; '.join(sizes)}. Left out: test places without a label, or of a class that nothing was fitted to. "
            f"In brackets 95 % intervals of {RESAMPLES:,} bootstrap weightings of the test cells; bold: the best of a "
            "column."
        )

    def _columns(self, measures: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Heading, task and measure of every column."""
        found = []
        for task, row in self.result["tasks"].items():
            scores = next(iter(row["features"].values()))["scores"]
            found += [(f"{TITLES[task]}: {MEASURES[key]}", task, key) for key in measures if key in scores]
        return found

    def _dims(self, name: str) -> str:
        rows = self.result["tasks"].values()
        return f"{next(iter(rows))['features'][name]['dims']:,}"


def probe_table(result: Mapping[str, Any]) -> ProbeTable:
    """The table of what `probe.json` holds.

    Raises:
        DataError: it holds no task.
    """
    if not result.get("tasks"):
        raise DataError("this probe holds no task; probe again: python -m geoclip.probe")
    return ProbeTable(result=result)


def _cell(result: Mapping[str, Any], task: str, measure: str, name: str) -> Cell:
    kinds = result["tasks"][task]["features"]
    values = {kind: found["scores"][measure]["value"] for kind, found in kinds.items()}
    best = (min if measure == "rmse" else max)(values.values())
    score = kinds[name]["scores"][measure]
    value, low, high = (shown(score[key], measure) for key in ("value", "low", "high"))
    return Cell(text=value, note=f"{low}–{high}", bold=values[name] == best)


def shown(value: float, measure: str) -> str:
    """A score as it is printed: shares in percent, R² with two digits, metres whole."""
    match measure:
        case "accuracy" | "macro_f1":
            return percent_text(100 * value)
        case "r2":
            return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
        case _:
            return f"{value:,.0f}"
