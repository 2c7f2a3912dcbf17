"""Random Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_frequencies(count: int, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """(count, 2) frequencies drawn from N(0, sigma²), in cycles per unit of the projected plane."""
    return torch.randn((count, 2), generator=generator) * sigma


def fourier_features(x_N2: Tensor, freq_K2: Tensor) -> Tensor:
    """(N, 2) projected coordinates -> (N, 2K): cosines, then sines, of 2 pi x.freq.

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions", NeurIPS 2020, eq. 5.
    """
    phase_NK = 2 * math.pi * x_N2 @ freq_K2.T
    return torch.cat((phase_NK.cos(), phase_NK.sin()), dim=1)
