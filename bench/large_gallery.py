"""Galleries larger than the released one: its places again and again, each time a few kilometres away."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from bench.released import released_gallery, released_geoclip
from geoclip.data.assets import cache_dir
from geoclip.evaluation.gallery import Gallery, encode_gallery, without_denormals
from geoclip.geo.geodesy import jitter, unit_vectors
from geoclip.run_dir import whole_file

JITTER_M = 5_000.0  # standard deviation to north and to east
ENCODED = 1_000_000  # places that the location encoder is asked about; further ones lie between these
AT_ONCE = 50_000


def jittered_places(count: int) -> Tensor:
    """(count, 2) degrees, float64: the released 100,000 places, then these moved by some kilometres.

    The first million and the rest are each sorted by squares of a degree, as a file of places often is; so a part of
    them is local, which the location encoder gains from.
    """
    released_G2 = released_gallery(100_000).gps_deg_G2[:count]
    generator = torch.Generator().manual_seed(0)
    copies = [released_G2]
    while sum(map(len, copies)) < count:
        copies.append(jitter(released_G2, JITTER_M, generator))
    places_G2 = torch.cat(copies)[:count]
    return torch.cat([_by_square(part) for part in (places_G2[:ENCODED], places_G2[ENCODED:])])


def embedded_file(count: int) -> Path:
    """A .npy of the places' unit vectors, (count, D) float16, made where it is not there.

    It lies in $GEOCLIP_BENCH_GALLERIES or the cache's folder `bench`. The first million are the released location
    encoder's; it would take hours for the others on a busy machine, so each of them is the mean of the embeddings of
    the three encoded places around it, weighted by 1 / distance, of length 1. These are a few kilometres away, where
    embeddings have a cosine of 0.9 and more.
    """
    folder = Path(os.environ.get("GEOCLIP_BENCH_GALLERIES") or cache_dir() / "bench")
    path = folder / f"embedded_{count}.npy"
    if not path.exists():
        with whole_file(path) as partial:
            _write(partial, jittered_places(count))
    return path


def _write(path: Path, places_G2: Tensor) -> None:
    encoder = without_denormals(released_geoclip()[0].location_encoder)
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(places_G2), 512)}
        np.lib.format.write_array_header_1_0(file, header)
        known: list[NDArray[np.float16]] = []
        for part in places_G2[:ENCODED].split(AT_ONCE):
            embedded = encode_gallery(encoder, Gallery(name="part", gps_deg_G2=part), torch.device("cpu"))
            known.append(embedded.half().numpy())
            file.write(known[-1].tobytes())
        if len(places_G2) <= ENCODED:
            return
        known_GD = np.concatenate(known)
        tree = cKDTree(unit_vectors(places_G2[:ENCODED]).numpy())
        for part in places_G2[ENCODED:].split(AT_ONCE):
            chord_M3, row_M3 = tree.query(unit_vectors(part).numpy(), k=3, workers=-1)
            weight_M31 = torch.from_numpy(1 / (chord_M3 + 1e-9)).float()[:, :, None]
            around_M3D = torch.from_numpy(known_GD[row_M3]).float()
            file.write(F.normalize((weight_M31 * around_M3D).sum(dim=1), dim=1).half().numpy().tobytes())


def _by_square(places_G2: Tensor) -> Tensor:
    square_G2 = places_G2.floor().long()
    return places_G2[(square_G2[:, 0] * 1000 + square_G2[:, 1]).argsort(stable=True)]
