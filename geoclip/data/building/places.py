"""Real MP16 places, split so that no two splits share one. Pure numpy, seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoclip.data.tables import read_gps_deg
from geoclip.errors import DataError

CELL_DEG = 5.0
MIN_CELLS = 10  # no cell may hold a larger share of the unseen test than a tenth
Places = NDArray[np.float64]  # (N, 2) latitude, longitude in degrees


def distinct_places(path: Path) -> Places:
    """(N, 2) the distinct coordinates of a table, in its order.

    Two that become one in float32, which training computes in, count as one.
    """
    rows = read_gps_deg(path, "gallery")
    _, first = np.unique(rows.astype(np.float32), axis=0, return_index=True)
    return rows[np.sort(first)]


def cells_of(gps_deg_N2: Places) -> NDArray[np.int64]:
    """(N,) the number of the 5° cell that each place lies in."""
    row_column_N2: NDArray[np.int64] = np.floor((gps_deg_N2 + np.array([90, 180])) / CELL_DEG).astype(np.int64)
    return row_column_N2[:, 0] * int(360 / CELL_DEG) + row_column_N2[:, 1]


def split_places(gps_deg_N2: Places, *, gallery: int, val: int, test: int, unseen: int, seed: int) -> dict[str, Places]:
    """Gallery, train, val, test at random, and test_unseen_cells: whole 5° cells without any training place.

    The gallery is drawn first and over the whole Earth, unseen cells included: a place can only be found if the
    gallery reaches it. Cells are then drawn in random order until `unseen` places outside of the gallery lie
    in them; one that holds more than a tenth of those is passed over, so that no single region decides the result.

    Raises:
        DataError: fewer places than the sizes ask for, or too many of them in too few cells.
    """
    if gallery + val + test + unseen >= len(gps_deg_N2):
        raise DataError(
            f"{len(gps_deg_N2)} places cannot give {gallery} + {val} + {test} + {unseen} and a training set"
        )
    rng = np.random.default_rng(seed)
    shuffled = gps_deg_N2[rng.permutation(len(gps_deg_N2))]
    rest = shuffled[gallery:]
    cell_of_rest = cells_of(rest)
    cells, counts = np.unique(cell_of_rest, return_counts=True)
    held_out: list[int] = []
    total = 0
    for number in rng.permutation(len(cells)):
        if total >= unseen:
            break
        if counts[number] <= unseen / MIN_CELLS:
            held_out.append(cells[number])
            total += counts[number]
    if total < unseen:
        raise DataError(
            f"the 5° cells of at most {unseen // MIN_CELLS} places hold only {total} together, not {unseen}; "
            "lower unseen_size"
        )
    is_unseen = np.isin(cell_of_rest, held_out)
    seen = rest[~is_unseen]
    return {
        "train": seen[val + test :],
        "val": seen[:val],
        "test": seen[val : val + test],
        "test_unseen_cells": rest[is_unseen],
        "gallery": shuffled[:gallery],
    }
