"""Galleries larger than the released one: its places again and again, each time a few kilometres away."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.released import released_gallery, released_geoclip
from geoclip.data.assets import cache_dir
from geoclip.evaluation.gallery import Gallery, encode_gallery, without_denormals
from geoclip.geo.geodesy import jitter
from geoclip.run_dir import whole_file

JITTER_M = 5_000.0  # standard deviation to north and to east
AT_ONCE = 50_000


def jittered_places(count: int) -> Tensor:
    """(count, 2) degrees, float64: the released 100,000 places, then these moved by some kilometres.

    They are sorted by squares of a degree, as a file of places often is; so a part of them is local, which the location
    encoder gains from.
    """
    released_G2 = released_gallery(100_000).gps_deg_G2[:count]
    generator = torch.Generator().manual_seed(0)
    copies = [released_G2]
    while sum(map(len, copies)) < count:
        noise_G2 = torch.randn(released_G2.shape, generator=generator)
        copies.append(jitter(released_G2, JITTER_M, noise_G2))
    places_G2 = torch.cat(copies)[:count]
    square_G2 = places_G2.floor().long()
    return places_G2[(square_G2[:, 0] * 1000 + square_G2[:, 1]).argsort(stable=True)]


def embedded_file(count: int) -> Path:
    """A .npy of the places' unit vectors, (count, D) float16, by the released location encoder; made where it is not.

    It lies in $GEOCLIP_BENCH_GALLERIES or the cache's folder `bench`. Ten million take a quarter of an hour on two
    quiet cores.
    """
    folder = Path(os.environ.get("GEOCLIP_BENCH_GALLERIES") or cache_dir() / "bench")
    path = folder / f"embedded_{count}.npy"
    if not path.exists():
        with whole_file(path) as partial:
            _write(partial, jittered_places(count))
    return path


def _write(path: Path, places_G2: Tensor) -> None:
    encoder = without_denormals(released_geoclip()[0].location_encoder)
    with (
        path.open("wb") as file,
        tqdm(total=len(places_G2), unit="place", unit_scale=True, desc=path.name, file=sys.stderr) as bar,
    ):
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(places_G2), 512)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in places_G2.split(AT_ONCE):
            embedded = encode_gallery(encoder, Gallery(name="part", gps_deg_G2=part), torch.device("cpu"))
            file.write(embedded.half().numpy().tobytes())
            bar.update(len(part))
