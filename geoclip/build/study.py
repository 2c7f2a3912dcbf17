"""A study's figures: from its results, and from what its runs said of each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw_study(results: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that the study has something for. Returns their files and what they show."""
    from geoclip.drawing.study_continents import draw_continents
    from geoclip.drawing.study_curves import draw_error_curves
    from geoclip.drawing.study_figures import draw_swept

    drawn = []
    for name, draw, text in (
        ("swept", draw_swept, f"accuracy against {', '.join(results['by'])}"),
        ("curves", draw_error_curves, "share of images within a distance"),
        ("continents", draw_continents, "accuracy by continent"),
    ):
        path = folder / f"{name}.png"
        draw(dict(results), path)
        drawn.append((path, text))
    return drawn
