"""Results of probes as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from geoclip.errors import DataError
from geoclip.evaluation.significance import RESAMPLES
from geoclip.plotting.curves import COLORS, INK, MUTED, PAPER, heading, panel_title, plain
from geoclip.plotting.tables import Cell, Table
from geoclip.plotting.world import WIDTH_IN, add_axes, new_figure, save_figure
from geoclip.system.console import percent_text

if TYPE_CHECKING:
    from rich.console import Group


TITLES = {"land_sea": "land or sea", "continent": "continent", "country": "country", "elevation": "elevation"}
METRICS = {"accuracy": "accuracy, %", "r2": "R²", "macro_f1": "macro-F1, %", "rmse": "RMSE, m"}
FIRST, SECOND = ("accuracy", "r2"), ("macro_f1", "rmse")  # one table for each
ROW_IN, GAP_IN, LEFT_IN, TOP_IN = 0.34, 0.35, 2.05, 0.95
BASELINES = ("nothing", "latitude, longitude", "unit sphere", "harmonics, L = 10", "harmonics, L = 40")


@dataclass(kw_only=True, slots=True, frozen=True)
class ProbeTable:
    """The results of one probe; the best values are found by their point estimates."""

    result: Mapping[str, Any]

    @property
    def features(self) -> list[str]:
        """Names of the probed features, in their order."""
        return list(next(iter(self.result["tasks"].values()))["features"])

    def markdown(self) -> str:
        """Two GitHub tables, then their caption."""
        return "\n".join([*(table.markdown() for table in self._tables(": ")), self.caption() + "\n"])

    def rich(self) -> Group:
        """For `rich.print`."""
        from rich.console import Group

        return Group(*(table.rich() for table in self._tables("\n")), self.caption())

    def _tables(self, separator: str) -> list[Table]:
        tables, tasks = [], self.result["tasks"]
        for metrics in (FIRST, SECOND):
            columns = [
                (task, metric)
                for task, row in tasks.items()
                for metric in metrics
                if metric in row["features"][self.features[0]]["scores"]
            ]
            heads = [f"{TITLES[task]}{separator}{METRICS[metric]}" for task, metric in columns]
            rows = [
                [
                    name,
                    f"{next(iter(tasks.values()))['features'][name]['dims']:,}",
                    *(_cell(tasks[task]["features"], metric, name) for task, metric in columns),
                ]
                for name in self.features
            ]
            tables.append(Table(["features", "dims", *heads], rows))
        return tables

    def caption(self) -> str:
        """Seed, numbers of locations and cells, and what the intervals are."""
        sizes = [
            f"{TITLES[task]}: {row['n']['train'] + row['n']['validation']:,} locations of "
            f"{row['cells']['train'] + row['cells']['validation']:,} cells to fit, {row['n']['test']:,} of "
            f"{row['cells']['test']:,} to test"
            + (f", {row['classes']} classes" if row["classes"] else "")
            + (f", {row['left_out_of_test']:,} left out" if row["left_out_of_test"] else "")
            for task, row in self.result["tasks"].items()
        ]
        return (
            f"Seed {self.result['seed']}; {self.result['places']:,} locations on the sphere and as many on land; "
            "linear heads; no 5° cell has both test and other locations. "
            f"{'; '.join(sizes)}. Left out: test locations without a label, or of a class that is not in the fitted "
            f"data. In brackets: 95 % intervals of {RESAMPLES:,} bootstrap weightings of the test cells; bold: the "
            "best of a column."
        )


def probe_table(result: Mapping[str, Any]) -> ProbeTable:
    """The table of a probe.json.

    Raises:
        DataError: it has no task.
    """
    if not result.get("tasks"):
        raise DataError("this probe has no task; probe again: python -m geoclip.probe")
    return ProbeTable(result=result)


def _cell(features: Mapping[str, Any], metric: str, name: str) -> Cell:
    scores = {feature: found["scores"][metric] for feature, found in features.items()}
    best = (min if metric == "rmse" else max)(score["value"] for score in scores.values())
    value, low, high = (_score_text(scores[name][key], metric) for key in ("value", "low", "high"))
    return Cell(text=value, note=f"{low}–{high}", bold=scores[name]["value"] == best)


def _score_text(value: float, metric: str) -> str:
    """Shares in percent, R² with two digits, metres without decimals."""
    match metric:
        case "accuracy" | "macro_f1":
            return percent_text(100 * value)
        case "r2":
            return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
        case _:
            return f"{value:,.0f}"


def draw_probe(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy, or R², of every task of a probe.json, with its interval; errors as `probe_table`."""
    names, tasks = probe_table(result).features, result["tasks"]
    width = (WIDTH_IN - LEFT_IN - 0.3 - GAP_IN * (len(tasks) - 1)) / len(tasks)
    height = ROW_IN * len(names)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.6, PAPER)
    note = f"seed {result['seed']}, {result['places']:,} locations; lines are 95 % intervals over test cells"
    heading(figure, "Scores of a linear head, in cells without training locations", right=note)
    for number, (task, row) in enumerate(tasks.items()):
        left = LEFT_IN + number * (width + GAP_IN)
        metric = next(key for key in FIRST if key in row["features"][names[0]]["scores"])
        panel_title(figure, left, TOP_IN - 0.14, TITLES[task])
        axes = add_axes(figure, left, TOP_IN, width, height)
        _bars(axes, [row["features"][name]["scores"][metric] for name in names], names, metric)
        axes.set_xlabel(METRICS[metric], color=MUTED, fontsize=10.5)
        axes.set_yticks(range(len(names)), labels=names if number == 0 else [""] * len(names), color=INK)
    save_figure(figure, path)


def _bars(axes: Axes, scores: Sequence[Mapping[str, float]], names: Sequence[str], metric: str) -> None:
    """Bars from 0, so that an R² below 0 has none, and intervals."""
    scale = 100 if metric == "accuracy" else 1
    value_N, low_N, high_N = (
        (scale * np.array([score[key] for score in scores])).clip(0) for key in ("value", "low", "high")
    )
    y_N = np.arange(len(names))
    axes.barh(y_N, value_N, color=[MUTED if name in BASELINES else COLORS[0] for name in names], height=0.66, alpha=0.9)
    lengths_2N = np.stack((value_N - low_N, high_N - value_N)).clip(0)
    axes.errorbar(value_N, y_N, xerr=lengths_2N, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2)
    for y, score, end in zip(range(len(names)), scores, np.maximum(high_N, value_N).tolist(), strict=True):
        text = _score_text(score["value"], metric)
        axes.text(end + 0.015 * scale, y, text, va="center", ha="left", color=INK, fontsize=9.5)
    axes.set_xlim(0, 1.18 * scale)
    axes.set_xticks([share * scale for share in (0, 0.25, 0.5, 0.75, 1)])
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain(axes, grid="x")
