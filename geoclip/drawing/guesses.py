"""The guesses for one picture as a table for the console."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from geoclip.evaluation.prediction import Guess
from geoclip.geo.geodesy import haversine_km
from geoclip.percent import percent_text


def guesses_table(title: str, guesses: Sequence[Guess], exif_deg: tuple[float, float] | None = None) -> Table:
    """For `rich.print`: a row per guess; how far off it is, where that is known; a link that no line break cuts.

    The score is the probability over the whole gallery. `exif_deg` is what the picture's own EXIF says of its place:
    it stands in the title, and nothing is computed from it but how far the best guess lies from it.
    """
    table = Table(
        title=title + _beside(guesses, exif_deg),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
    )
    known = any(guess.distance_km is not None for guess in guesses)
    for column in ("rank", "latitude", "longitude", "score", "cosine", *(["km off"] if known else [])):
        table.add_column(column, justify="right")
    table.add_column("map", no_wrap=True)
    for guess in guesses:
        cells = [f"{guess.rank}", f"{guess.lat:.4f}", f"{guess.lon:.4f}"]
        cells += [f"{percent_text(100 * guess.probability, 2)} %", f"{guess.cosine:.3f}"]
        cells += [] if guess.distance_km is None else [f"{guess.distance_km:,.0f}"]
        table.add_row(*cells, guess.map)
    return table


def _beside(guesses: Sequence[Guess], exif_deg: tuple[float, float] | None) -> str:
    if exif_deg is None:
        return ""
    best = torch.tensor([[guesses[0].lat, guesses[0].lon]], dtype=torch.float64)
    off_km = haversine_km(best, torch.tensor([exif_deg], dtype=torch.float64)).item()
    return f"  (EXIF, not used: {exif_deg[0]:.4f}, {exif_deg[1]:.4f}; the best guess is {off_km:,.0f} km off)"
