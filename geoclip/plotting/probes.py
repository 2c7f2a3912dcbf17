"""Results of probes as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoclip.errors import DataError
from geoclip.evaluation.significance import RESAMPLES
from geoclip.plotting.curves import COLORS, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.plotting.tables import Cell, Table
from geoclip.plotting.world import WIDTH_IN, add_axes, new_figure, save_figure
from geoclip.system.console import percent_text

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


ROW_IN, GAP_IN, LEFT_IN, TOP_IN = 0.34, 0.35, 2.05, 0.95
COORDINATES = ("nothing", "latitude, longitude", "unit sphere", "harmonics, L = 10", "harmonics, L = 40")


def draw_probe(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy, or R², of every task, with its interval.

    Args:
        result: what probe.json holds.
        path: the PNG to write.

    Raises:
        DataError: as `probe_table`.
    """
    names = probe_table(result).features
    tasks = result["tasks"]
    width = (WIDTH_IN - LEFT_IN - 0.3 - GAP_IN * (len(tasks) - 1)) / len(tasks)
    height = ROW_IN * len(names)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.6, PAPER)
    sizes = f"seed {result['seed']}, {result['places']:,} places; lines are 95 % intervals over test cells"
    heading(figure, "What a linear head reads from them in cells it has not seen", right=sizes)
    for number, (task, row) in enumerate(tasks.items()):
        left = LEFT_IN + number * (width + GAP_IN)
        measure = next(key for key in FIRST if key in row["features"][names[0]]["scores"])
        panel_title(figure, left, TOP_IN - 0.14, TITLES[task])
        axes = add_axes(figure, left, TOP_IN, width, height)
        _bars(axes, [row["features"][name]["scores"][measure] for name in names], names, measure)
        axes.set_xlabel(MEASURES[measure], color=MUTED, fontsize=10.5)
        axes.set_yticks(range(len(names)), labels=names if number == 0 else [""] * len(names), color=INK)
    save_figure(figure, path)


def _bars(axes: Any, scores: list[Mapping[str, float]], names: list[str], measure: str) -> None:
    scale = 100 if measure == "accuracy" else 1
    value_N, low_N, high_N = (scale * np.array([score[key] for score in scores]) for key in ("value", "low", "high"))
    shown_N = np.clip(value_N, 0, None)  # an R² below 0 has no bar
    colors = [MUTED if name in COORDINATES else COLORS[0] for name in names]
    axes.barh(range(len(names)), shown_N, color=colors, height=0.66, alpha=0.9)
    reach = np.stack((shown_N - np.clip(low_N, 0, None), np.clip(high_N, 0, None) - shown_N)).clip(0)
    axes.errorbar(shown_N, range(len(names)), xerr=reach, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2)
    for row, (score, end) in enumerate(zip(scores, np.maximum(high_N, shown_N), strict=True)):
        text = shown(score["value"], measure)
        axes.text(end + 0.015 * scale, row, text, va="center", ha="left", color=INK, fontsize=9.5)
    axes.set_xlim(0, 1.18 * scale)
    axes.set_xticks([0, 0.25 * scale, 0.5 * scale, 0.75 * scale, scale])
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain(axes, grid="x")
