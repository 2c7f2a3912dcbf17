"""GeoCLIP's location encoder: a projection, and random Fourier features with an MLP at several scales.

`local_embeddings` computes the same embeddings faster for many coordinates on a CPU: nearby coordinates leave the same
hidden units of the coarse scales at zero. So coordinates are sorted by location and encoded in chunks, and each product
omits the units that ReLU sets to zero for every location of the chunk: about half in the released encoder's coarsest
scale, none in its finest. Chunks run in parallel, one thread each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip.geo.encodings import equal_earth, equirectangular, fourier_features, mercator, random_frequencies, sphere

PROJECTIONS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {  # with the number of axes, A
    "equal_earth": (equal_earth, 2),
    "equirectangular": (equirectangular, 2),
    "mercator": (mercator, 2),
    "sphere": (sphere, 3),
}


def checked_degrees(gps_deg_N2: Tensor) -> Tensor:
    """The coordinates in float32.

    Raises:
        ValueError: they are not (N, 2).
    """
    if gps_deg_N2.ndim != 2 or gps_deg_N2.shape[1] != 2:
        raise ValueError(f"coordinates must be (N, 2) latitude, longitude in degrees, got {tuple(gps_deg_N2.shape)}")
    return gps_deg_N2.float()


def relu_mlp(inputs: int, hidden_dim: int, depth: int) -> nn.Sequential:
    """`depth` hidden layers, each followed by ReLU."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise([inputs] + [hidden_dim] * depth):
        layers += [nn.Linear(narrow, wide), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class FourierBranch(nn.Module):
    """One scale: random Fourier features of width 2K, an MLP, a linear head."""

    freq_KA: Tensor

    def __init__(
        self, freq_KA: Tensor, mlp: nn.Sequential, head: nn.Linear, *, learn_frequencies: bool = False
    ) -> None:
        super().__init__()
        if learn_frequencies:
            self.freq_KA = nn.Parameter(freq_KA)
        else:
            self.register_buffer("freq_KA", freq_KA)
        self.mlp = mlp
        self.head = head

    def features(self, x_NA: Tensor) -> Tensor:
        """(N, A) projected coordinates, float32 -> (N, 2K).

        The phases are float32 under autocast too: at sigma 2^8 they reach thousands of radians, where bfloat16 has no
        fractional digits.
        """
        with torch.autocast(x_NA.device.type, enabled=False):
            return fourier_features(x_NA, self.freq_KA.float())

    def forward(self, x_NA: Tensor) -> Tensor:
        """(N, A) projected coordinates, float32 -> (N, D)."""
        if x_NA.is_cuda and not torch.is_grad_enabled():
            return self.without_gradient(x_NA)
        out: Tensor = self.head(self.mlp(self.features(x_NA)))
        return out

    def without_gradient(self, x_NA: Tensor) -> Tensor:
        """As `forward`, with each hidden layer and its ReLU in one kernel, which saves memory traffic on a GPU."""
        device = x_NA.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        with torch.no_grad(), torch.autocast(device, enabled=False):
            out = fourier_features(x_NA, self.freq_KA.float(), dtype)
            for layer in self.mlp:
                if isinstance(layer, nn.Linear):
                    out = torch._addmm_activation(layer.bias.to(dtype), out, layer.weight.to(dtype).t())
            return torch.addmm(self.head.bias.to(dtype), out, self.head.weight.to(dtype).t())


class LocationEncoder(nn.Module):
    """A projection, then one `FourierBranch` per sigma; the outputs are summed or concatenated.

    Args:
        sigmas: standard deviation of each branch's frequencies, coarse to fine.
        frequencies: K, random frequencies per branch.
        projection: a name in `PROJECTIONS`.
        concat: concatenate the outputs of the scales, of D / len(sigmas) dimensions each; otherwise sum them.
        share_mlp: one MLP and head for all scales.
        learn_frequencies: train the frequencies too.

    Raises:
        ValueError: no sigma, or one that is not positive; an unknown projection; D is not a multiple of len(sigmas).

    Source: GeoCLIP, NeurIPS 2023, section 3; dimensions of the released code as defaults.
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (1.0, 16.0, 256.0),
        *,
        frequencies: int = 256,
        hidden_dim: int = 1024,
        depth: int = 3,
        embedding_dim: int = 512,
        projection: str = "equal_earth",
        concat: bool = False,
        share_mlp: bool = False,
        learn_frequencies: bool = False,
    ) -> None:
        super().__init__()
        if not sigmas or min(sigmas) <= 0:
            raise ValueError(f"sigmas={list(sigmas)} must be one or more positive numbers")
        if projection not in PROJECTIONS:
            raise ValueError(f"projection={projection!r} is unknown; choose one of {', '.join(PROJECTIONS)}")
        if concat and embedding_dim % len(sigmas):
            raise ValueError(f"{embedding_dim} dimensions do not divide over {len(sigmas)} scales")
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self.projection, self.concat = projection, concat
        share = embedding_dim // len(self.sigmas) if concat else embedding_dim

        def layers() -> tuple[nn.Sequential, nn.Linear]:
            return relu_mlp(2 * frequencies, hidden_dim, depth), nn.Linear(hidden_dim, share)

        def branch(sigma: float, mlp: nn.Sequential, head: nn.Linear) -> FourierBranch:
            freq_KA = random_frequencies(frequencies, sigma, PROJECTIONS[projection][1])
            return FourierBranch(freq_KA, mlp, head, learn_frequencies=learn_frequencies)

        shared = layers() if share_mlp else None
        self.branches = nn.ModuleList(branch(sigma, *(shared or layers())) for sigma in self.sigmas)

    def projected(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) latitude, longitude in degrees -> (N, A) float32, under autocast too."""
        degrees_N2 = checked_degrees(gps_deg_N2)
        with torch.autocast(gps_deg_N2.device.type, enabled=False):
            return PROJECTIONS[self.projection][0](degrees_N2)

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """The branches' outputs, coarse to fine -> (N, D)."""
        return torch.cat(list(outputs), dim=1) if self.concat else torch.stack(list(outputs)).sum(dim=0)

    def forward(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) latitude, longitude in degrees -> (N, D) embeddings, not normalised."""
        x_NA = self.projected(gps_deg_N2)
        return self.joined([branch(x_NA) for branch in self.branches])


CELL_DEG = 8  # side of the squares by which coordinates are sorted
CHUNK = 1024  # rows whose hidden layers fit a CPU's cache
WORTH = 0.9  # share of active units above which selecting them costs more than it saves


def local_embeddings(encoder: LocationEncoder, gps_deg_N2: Tensor, chunk: int = CHUNK) -> Tensor:
    """(N, 2) latitude, longitude in degrees, float32 -> (N, D) unit vectors, float32, in the same order."""
    with torch.inference_mode():
        embedding_ND = torch.empty(len(gps_deg_N2), encoder(gps_deg_N2[:1]).shape[1])
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def embed(rows: Tensor) -> None:
        # Both settings are per thread, and a new thread does not inherit them.
        with torch.inference_mode(), torch.autocast("cpu", enabled=enabled, dtype=dtype):
            x_NA = encoder.projected(gps_deg_N2[rows])
            outputs = [_active_units_only(branch, x_NA) for branch in encoder.branches]  # type: ignore[arg-type]
            embedding_ND[rows] = F.normalize(encoder.joined(outputs).float(), dim=1)

    _one_thread_each(embed, _rows_by_cell(gps_deg_N2).split(chunk))
    return embedding_ND


def _one_thread_each(work: Callable[[Tensor], None], parts: Sequence[Tensor]) -> None:
    """Each part on one thread: threads that share an operation wait for each other too often."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2 * threads:
        for part in parts:
            work(part)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)  # threads that start later inherit the number set last


def _rows_by_cell(gps_deg_N2: Tensor) -> Tensor:
    """(N,) row numbers, sorted by square."""
    south_N, west_N = (gps_deg_N2 / CELL_DEG).floor().long().unbind(dim=1)
    return (south_N * 360 + west_N).argsort()


def _active_units_only(branch: FourierBranch, x_NA: Tensor) -> Tensor:
    """(N, A) -> (N, D) as the branch's forward, from the units that are active in at least one row."""
    out_NH, active = branch.features(x_NA), None  # None: all units
    for hidden in (layer for layer in branch.mlp if isinstance(layer, nn.Linear)):
        out_NH = F.relu_(F.linear(out_NH, _columns(hidden.weight, active), hidden.bias))
        # Nothing is negative: the sum over rows is 0 only for units that are inactive in all of them.
        active = out_NH.sum(dim=0).nonzero()[:, 0]
        if len(active) > WORTH * out_NH.shape[1]:
            active = None
        out_NH = _columns(out_NH, active)
    return F.linear(out_NH, _columns(branch.head.weight, active), branch.head.bias)


def _columns(table: Tensor, chosen: Tensor | None) -> Tensor:
    return table if chosen is None else table.index_select(1, chosen)
