"""Random Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_frequencies(count: int, sigma: float, axes: int = 2, generator: torch.Generator | None = None) -> Tensor:
    """(count, axes) frequencies drawn from N(0, sigma²), in cycles per unit of the projected plane or space."""
    return torch.randn((count, axes), generator=generator) * sigma


def spaced_sigmas(sigma_min: float, sigma_max: float, scales: int) -> list[float]:
    """Scales from sigma_min to sigma_max, evenly spaced in log2; of one scale sigma_min.

    Source: GeoCLIP, NeurIPS 2023, section 3: the general rule for M branches.
    """
    steps = torch.linspace(math.log2(sigma_min), math.log2(sigma_max), scales, dtype=torch.float64)
    return [float(sigma) for sigma in steps.exp2()]


def fourier_features(x_NA: Tensor, freq_KA: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(N, A) projected coordinates -> (N, 2K): cosines, then sines, of 2 pi x.freq.

    Args:
        x_NA: float32.
        freq_KA: cycles per unit.
        dtype: of the result, rounded after the cosine, written without a copy between, and without a gradient; None:
            the coordinates' own, with one.

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions", NeurIPS 2020, eq. 5.
    """
    phase_NK = _products(2 * math.pi * x_NA, freq_KA)
    if dtype is not None:
        features_NF = torch.empty((len(x_NA), 2 * len(freq_KA)), dtype=dtype, device=x_NA.device)
        torch.cos(phase_NK, out=features_NF[:, : len(freq_KA)])
        torch.sin(phase_NK, out=features_NF[:, len(freq_KA) :])
        return features_NF
    return torch.cat((phase_NK.cos(), phase_NK.sin()), dim=1)


def _products(x_NA: Tensor, freq_KA: Tensor) -> Tensor:
    """(N, K) x @ freq.T; on a GPU axis by axis, because its matrix products may be TF32's, with 10 bits."""
    if not x_NA.is_cuda:
        return x_NA @ freq_KA.T
    phase_NK = x_NA[:, :1] * freq_KA[:, 0]
    for axis in range(1, x_NA.shape[1]):
        phase_NK = torch.addcmul(phase_NK, x_NA[:, axis, None], freq_KA[:, axis])
    return phase_NK
