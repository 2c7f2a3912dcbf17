"""Galleries of 100,000, a million and ten million places: exact search in chunks, and the index of cells.

The released code has no search at these sizes, so an exact one stands in its place. The embeddings lie
on disk in half precision, see `bench.large_gallery`; both sides read the same file, and neither holds it in float32.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.harness import Row, compare
from bench.large_gallery import embedded_file, jittered_places
from bench.parity import TOP, queries_for
from bench.released import released_gallery, released_geoclip
from geoclip.evaluation.cell_index import CellIndex, build_index, read_index
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.geo.geodesy import haversine_km

QUERIES = 200
SIZES = {
    100_000: (128, 256),
    1_000_000: (128, 512),
    10_000_000: (256, 512),
}  # places of a cell, cells looked at
CHUNK = 65_536  # places of the exact search that are float32 at a time: 134 MB
Halves = NDArray[np.float16]
Found = tuple[Tensor, Tensor]  # similarities and rows


def measure(quick: bool) -> list[Row]:
    """Top 5 of one query. Nothing when quick: where galleries are small, there is nothing that an index could gain.

    Ten million places need 22 GB of disk and, while the index is built, 11 GB of memory; to embed them takes a quarter
    of an hour and to build minutes, once.
    """
    if quick:
        return []
    ours, _ = released_geoclip()
    with torch.inference_mode(False):
        features_NF = queries_for(ours, released_gallery(100_000).gps_deg_G2.float(), QUERIES)
    with torch.inference_mode():
        query_ND = ours.encode_features(features_NF)
    return [_growth(places, *how, query_ND, turns=3) for places, how in SIZES.items()]


def _growth(places: int, cell_size: int, cells: int, query_ND: Tensor, turns: int) -> Row:
    """One size: agreement over all queries, time of the middle one."""
    path, gps_deg_G2 = embedded_file(places), jittered_places(places)
    halves_GD: Halves = np.load(path, mmap_mode="r")
    index = _index(path.with_suffix(f".{places}.{cell_size}.index"), halves_GD, gps_deg_G2, cell_size)
    exact = exact_search(query_ND, halves_GD[:places])
    said = agreement(index.search(query_ND, TOP, cells=cells), exact, gps_deg_G2)
    one_1D = query_ND[len(query_ND) // 2 :][:1]
    size_mb = places * (2 * query_ND.shape[1] + 8) / 1e6
    return compare(
        f"top {TOP} of one query among {places:,} places (exact search in place of the released code, "
        "which has none at this size)",
        ours=partial(index.search, one_1D, TOP, cells=cells),
        released=partial(exact_search, one_1D, halves_GD[:places]),
        agree=lambda mine, theirs: said,
        turns=turns,
        target=50 if places == 10_000_000 else None,
        note=f"{cells} of {index.cells:,} cells looked at; index {size_mb:,.0f} MB, mapped; exact: float16 from "
        f"disk, {CHUNK:,} places at a time; float32 would be {places * 4 * query_ND.shape[1] / 1e6:,.0f} MB",
    )


def exact_search(query_ND: Tensor, halves_GD: Halves) -> Found:
    """`nearest_in_gallery` over a file of half precision, chunk by chunk."""
    scores, rows = [], []
    for first in range(0, len(halves_GD), CHUNK):
        part = torch.from_numpy(halves_GD[first : first + CHUNK].astype(np.float32))
        score, row = nearest_in_gallery(query_ND, part, TOP)
        scores.append(score)
        rows.append(row + first)
    best, order = torch.cat(scores, dim=1).sort(dim=1, descending=True, stable=True)
    return best[:, :TOP], torch.cat(rows, dim=1).gather(1, order)[:, :TOP]


def agreement(found: Found, exact: Found, gps_deg_G2: Tensor) -> str:
    """The same best place, by its coordinates; the common part of the five best; km between the best ones.

    Raises:
        AssertionError: the best place agrees for fewer than 98 % of the queries.
    """
    mine_N2, theirs_N2 = gps_deg_G2[found[1][:, 0]], gps_deg_G2[exact[1][:, 0]]
    apart_km_N = haversine_km(mine_N2, theirs_N2)
    # Equal places, and equal similarities that sums in another order tell apart, are no disagreement.
    same_N = (apart_km_N < 1e-6) | ((found[0][:, 0] - exact[0][:, 0]).abs() < 1e-6)
    common = (found[1][:, :, None] == exact[1][:, None, :]).any(dim=2).float().mean().item()
    assert same_N.float().mean() >= 0.98, f"only {100 * same_N.float().mean():.1f} % of the best places agree"
    return (
        f"best place {100 * same_N.float().mean():.1f} % of {len(same_N)} queries, five best {100 * common:.1f} %, "
        f"median {apart_km_N.median():.1g} km and mean {apart_km_N.mean():.0f} km apart"
    )


def _index(path: Path, halves_GD: Halves, gps_deg_G2: Tensor, cell_size: int) -> CellIndex:
    """From the file beside the embeddings, where it was built before."""
    if not path.exists():
        build_index(
            gps_deg_G2,
            lambda rows_M: torch.from_numpy(halves_GD[rows_M].astype(np.float32)),
            cell_size=cell_size,
        ).save(path)
    return read_index(path)
