"""A study's figures: from its results and its runs' predictions for each image."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoclip.data.blue_marble import read_earth
from geoclip.drawing.report_figures import draw_report_figures, read_results
from geoclip.drawing.study_continents import draw_continents
from geoclip.drawing.study_curves import draw_error_curves
from geoclip.drawing.study_figures import draw_swept
from geoclip.drawing.study_maps import draw_wins
from geoclip.errors import AssetError
from geoclip.evaluation.study_runs import read_config
from geoclip.recorder import read_rows

log = logging.getLogger("geoclip")

EARTH_PX = 2160


def draw_study(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that the study has something for. Returns their files and what they show."""
    if not results["by"]:
        return _of_one_run(results, folder)
    drawn = []
    for name, draw, text in (
        ("swept", draw_swept, f"accuracy against {', '.join(results['by'])}"),
        ("curves", draw_error_curves, "share of images within a distance"),
        ("continents", draw_continents, "accuracy by continent"),
    ):
        draw(dict(results), folder / f"{name}.png")
        drawn.append((folder / f"{name}.png", text))
    return [*drawn, *_wins(results, folder)]


def _of_one_run(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Where nothing is varied: the figures of the first seed's report, and its data set's."""
    variant = next(iter(results["benchmarks"].values()))["variants"][0]
    run = Path(variant["evaluations"][0]).parent.parent
    figures = draw_report_figures(run, read_rows(run / "metrics.jsonl"), read_results(run), read_earth(EARTH_PX))
    distribution = Path(read_config(run)["data"]["root"]) / "distribution.png"
    figures |= {"distribution": distribution} if distribution.is_file() else {}
    drawn = []
    for name, path in figures.items():
        shutil.copyfile(path, folder / f"{name}.png")
        drawn.append((folder / f"{name}.png", f"{name.replace('_', ' ')}, seed {variant['seeds'][0]}"))
    return drawn


def _wins(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Where the best of the other variants wins and loses against the baseline, on every benchmark."""
    drawn = []
    for benchmark, found in results["benchmarks"].items():
        base, *others = found["variants"]
        if base["gain"] is not None or not others or others[0]["gain"] is None:
            return []  # no baseline
        best = max(others, key=lambda variant: variant["metrics"]["geoscore"]["mean"])
        try:
            background = read_earth(EARTH_PX)
        except AssetError as error:
            log.warning("no maps of wins: %s", error)
            return []
        path = folder / f"wins_{benchmark}.png"
        pairs = sorted(set(base["seeds"]) & set(best["seeds"]))
        before, after = ([Path(one["evaluations"][one["seeds"].index(seed)]) for seed in pairs] for one in (base, best))
        draw_wins(before, after, background, path, f"{best['label']} against {base['label']}, {benchmark}")
        drawn.append((path, f"where {best['label']} is nearer than {base['label']}, {benchmark}"))
    return drawn
