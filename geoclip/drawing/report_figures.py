"""The figures of a run's report, drawn from what is in its folder and kept under figures/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoclip.drawing.curves import draw_errors, draw_training
from geoclip.drawing.details_figure import draw_details
from geoclip.drawing.maps import draw_predictions
from geoclip.drawing.world import Picture
from geoclip.errors import DataError
from geoclip.recorder import Row
from geoclip.run_dir import read_json

FIRST = ("test", "test_unseen_cells")  # shown before the others, which follow by name
COLUMNS = ("lat", "lon", "predicted_lat", "predicted_lon", "distance_km")


def read_results(run: Path) -> list[dict[str, Any]]:
    """The contents of `eval/*.json`: the embedded default's test splits first, then by name.

    Raises:
        DataError: a file that is no JSON object.
    """
    results = []
    for path in sorted((run / "eval").glob("*.json")):
        if path.name.startswith("compare-"):  # of geoclip.compare
            continue
        result = read_json(path)
        if not isinstance(result.get("benchmark"), str):
            raise DataError(f"{path} is no evaluation; move it elsewhere or evaluate again")
        results.append(result | {"evaluation": path.stem})
    order = {name: number for number, name in enumerate(FIRST)}
    return sorted(results, key=lambda result: (order.get(result["benchmark"], len(FIRST)), result["evaluation"]))


def draw_report_figures(
    run: Path, rows: list[Row], results: list[dict[str, Any]], background: Picture
) -> dict[str, Path]:
    """Draw what the run's folder allows into `figures/`.

    Args:
        run: the run's folder.
        rows: of metrics.jsonl.
        results: of `read_results`; a benchmark without its CSV is left out.
        background: (height, width, 3) equirectangular picture of the whole Earth.

    Returns:
        Paths by name: `training`, `errors`, `details`, and `predictions_<benchmark>`; those that could be drawn.

    Raises:
        DataError: a CSV that lacks a column or holds what is no coordinate.
    """
    tables = {result["evaluation"]: table for result in results if (table := _read_table(run, result["evaluation"]))}
    figures, drawn = run / "figures", dict[str, Path]()
    if any(row.get("kind") == "train" for row in rows):
        drawn["training"] = figures / "training.png"
        draw_training(rows, drawn["training"])
    if tables:
        drawn["errors"] = figures / "errors.png"
        ceilings = {name: table["ceiling_km"] for name, table in tables.items() if "ceiling_km" in table}
        draw_errors({name: table["distance_km"] for name, table in tables.items()}, ceilings, drawn["errors"])
    if results and results[0].get("by_continent"):
        drawn["details"] = figures / "details.png"
        draw_details(results[0], drawn["details"])
    for name, table in tables.items():
        drawn[f"predictions_{name}"] = figures / f"predictions_{name}.png"
        draw_predictions(
            np.column_stack((table["lat"], table["lon"])),
            np.column_stack((table["predicted_lat"], table["predicted_lon"])),
            table["distance_km"],
            background,
            drawn[f"predictions_{name}"],
            title=name,
        )
    return drawn


def _read_table(run: Path, benchmark: str) -> Mapping[str, NDArray[np.float64]]:
    """The numbers of `eval/<benchmark>.csv` by column; empty where the file is missing."""
    path = run / "eval" / f"{benchmark}.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; evaluate again")
    kept = [*COLUMNS, *(name for name in ("ceiling_km",) if name in table)]
    return {name: table[name].to_numpy(dtype=np.float64) for name in kept}
