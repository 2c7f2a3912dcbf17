"""The guesses for one picture as a table for the console."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from geoclip.evaluation.prediction import Guess


def guesses_table(title: str, guesses: Sequence[Guess]) -> Table:
    """For `rich.print`: a row per guess; how far off it is, where that is known; a link that no line break cuts.

    The score is the probability over the whole gallery.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
    known = any(guess.distance_km is not None for guess in guesses)
    for column in ("rank", "latitude", "longitude", "score", "cosine", *(["km off"] if known else [])):
        table.add_column(column, justify="right")
    table.add_column("map", no_wrap=True)
    for guess in guesses:
        cells = [f"{guess.rank}", f"{guess.lat:.4f}", f"{guess.lon:.4f}"]
        cells += [f"{guess.probability:.2%}", f"{guess.cosine:.3f}"]
        cells += [] if guess.distance_km is None else [f"{guess.distance_km:,.0f}"]
        table.add_row(*cells, guess.map)
    return table
