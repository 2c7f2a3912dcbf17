"""The guesses for one picture as a table for the console."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table as RichTable
from rich.text import Text

from geoclip.drawing.table_format import Table
from geoclip.evaluation.prediction import Guess
from geoclip.geo.geodesy import haversine_km
from geoclip.percent import percent_text


def guesses_table(title: str, guesses: Sequence[Guess], exif_deg: tuple[float, float] | None = None) -> RichTable:
    """For `rich.print`: a row per guess; how far off it is, where that is known; a link that no line break cuts.

    The score is the probability over the whole gallery. `exif_deg` is what the picture's own EXIF says of its place:
    it stands in the title, and nothing is computed from it but how far the best guess lies from it.
    """
    known = any(guess.distance_km is not None for guess in guesses)
    heads = ["rank", "latitude", "longitude", "score", "cosine", *(["km off"] if known else []), "map"]
    rows = [
        [
            *(f"{guess.rank}", f"{guess.lat:.4f}", f"{guess.lon:.4f}"),
            *(f"{percent_text(100 * guess.probability, 2)} %", f"{guess.cosine:.3f}"),
            *([] if guess.distance_km is None else [f"{guess.distance_km:,.0f}"]),
            guess.map,
        ]
        for guess in guesses
    ]
    table = Table(heads, rows, Text(title + _beside(guesses, exif_deg), "bold")).rich()
    rank, link = table.columns[0], table.columns[-1]
    rank.justify, link.justify, link.no_wrap = "right", "left", True
    return table


def _beside(guesses: Sequence[Guess], exif_deg: tuple[float, float] | None) -> str:
    if exif_deg is None:
        return ""
    best = torch.tensor([[guesses[0].lat, guesses[0].lon]], dtype=torch.float64)
    off_km = haversine_km(best, torch.tensor([exif_deg], dtype=torch.float64)).item()
    return f"  (EXIF, not used: {exif_deg[0]:.4f}, {exif_deg[1]:.4f}; the best guess is {off_km:,.0f} km off)"
