"""Many coordinates through the location encoder on a processor: the same embeddings, without products with zeros.

Neighbours leave the same hidden units of the coarse scales at zero. So coordinates are taken by place, a part at a
time, and the next layer's product leaves out the units that ReLU keeps at zero for the whole part: of the released
encoder's coarsest scale about half, of its finest none. The parts run beside each other, one thread each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.model.location_encoder import FourierBranch, LocationEncoder

CELL_DEG = 8  # of the squares by which places are sorted
CHUNK = 1024  # rows whose hidden layers a processor's cache holds
WORTH = 0.9  # of the units fire: more, and picking them out costs what it saves


def local_embeddings(encoder: LocationEncoder, gps_deg_N2: Tensor, chunk: int = CHUNK) -> Tensor:
    """(N, 2) latitude, longitude in degrees -> (N, D) unit vectors, float32, in the order of the coordinates.

    Args:
        encoder: on a processor.
        gps_deg_N2: float32.
        chunk: rows at a time.
    """
    with torch.inference_mode():
        embedding_ND = torch.empty(len(gps_deg_N2), encoder(gps_deg_N2[:1]).shape[1])
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def embed(rows: Tensor) -> None:
        # Both are a thread's own, and a new thread knows nothing of its maker's.
        with torch.inference_mode(), torch.autocast("cpu", enabled=enabled, dtype=dtype):
            x_NA = encoder.projected(gps_deg_N2[rows])
            outputs = [_firing_alone(branch, x_NA) for branch in encoder.branches]  # type: ignore[arg-type]
            embedding_ND[rows] = F.normalize(encoder.joined(outputs).float(), dim=1)

    _one_thread_each(embed, _by_place(gps_deg_N2).split(chunk))
    return embedding_ND


def _one_thread_each(work: Callable[[Tensor], None], parts: Sequence[Tensor]) -> None:
    """Every part on one thread: threads that share an operation wait for each other hundreds of times a second."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2 * threads:
        for part in parts:
            work(part)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)  # threads that start later take over the number set last


def _by_place(gps_deg_N2: Tensor) -> Tensor:
    """(N,) row numbers, square by square."""
    south_N, west_N = (gps_deg_N2 / CELL_DEG).floor().long().unbind(dim=1)
    return (south_N * 360 + west_N).argsort()


def _firing_alone(branch: FourierBranch, x_NA: Tensor) -> Tensor:
    """(N, A) -> (N, D) as the branch's forward, by the units alone that fire in some of the rows."""
    out_NH, firing = branch.features(x_NA), None  # None: all
    for hidden in (layer for layer in branch.mlp if isinstance(layer, nn.Linear)):
        out_NH = F.relu_(F.linear(out_NH, _columns(hidden.weight, firing), hidden.bias))
        # None is negative, so the sum over the rows is 0 for units that fire in none of them, and for these alone.
        firing = out_NH.sum(dim=0).nonzero()[:, 0]
        if len(firing) > WORTH * out_NH.shape[1]:
            firing = None
        out_NH = _columns(out_NH, firing)
    return F.linear(out_NH, _columns(branch.head.weight, firing), branch.head.bias)


def _columns(table: Tensor, chosen: Tensor | None) -> Tensor:
    return table if chosen is None else table.index_select(1, chosen)
