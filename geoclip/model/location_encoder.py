"""The location encoder: coordinates in, embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geoclip.geo.fourier import fourier_features, random_frequencies
from geoclip.geo.projection import equal_earth


class FourierBranch(nn.Module):
    """One scale: random Fourier features of width 2K, an MLP, a linear head."""

    freq_K2: Tensor

    def __init__(
        self, sigma: float, *, frequencies: int, hidden_dim: int, depth: int, embedding_dim: int
    ) -> None:
        super().__init__()
        self.register_buffer("freq_K2", random_frequencies(frequencies, sigma))
        widths = [2 * frequencies] + [hidden_dim] * depth
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.mlp = nn.Sequential(*layers)
        self.head = nn.Linear(hidden_dim, embedding_dim)

    def forward(self, x_N2: Tensor) -> Tensor:
        """(N, 2) projected coordinates, float32 -> (N, D).

        The phases are float32 whatever autocast says: at sigma 2^8 they reach thousands of radians, where
        bfloat16 has no digits left.
        """
        with torch.autocast(x_N2.device.type, enabled=False):
            features_N2K = fourier_features(x_N2, self.freq_K2.float())
        out: Tensor = self.head(self.mlp(features_N2K))
        return out


class LocationEncoder(nn.Module):
    """Equal Earth projection, one `FourierBranch` per sigma, summed.

    Args:
        sigmas: standard deviation of each branch's frequencies, coarse to fine.
        frequencies: K, random frequencies per branch.
        hidden_dim: width of each branch's MLP.
        depth: hidden layers of each branch's MLP.
        embedding_dim: D.

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
    ) -> None:
        super().__init__()
        if not sigmas or min(sigmas) <= 0:
            raise ValueError(f"sigmas={list(sigmas)} must hold at least one positive number")
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self.branches = nn.ModuleList(
            FourierBranch(
                sigma,
                frequencies=frequencies,
                hidden_dim=hidden_dim,
                depth=depth,
                embedding_dim=embedding_dim,
            )
            for sigma in self.sigmas
        )

    @classmethod
    def from_pretrained(cls, source: str = "official") -> LocationEncoder:
        """The released location encoder (`official`), from the pinned wheel on the package index.

        Raises:
            ValueError: any other source.
            AssetError: the wheel is neither cached nor reachable.
        """
        from geoclip.model.pretrained import released_location_encoder, require_official

        require_official(source)
        return released_location_encoder()

    def forward(self, gps_deg_N2: Tensor) -> Tensor:
        """(N, 2) latitude, longitude in degrees -> (N, D) embeddings, not normalised."""
        if gps_deg_N2.ndim != 2 or gps_deg_N2.shape[1] != 2:
            raise ValueError(
                f"coordinates must be (N, 2) latitude, longitude in degrees, got {tuple(gps_deg_N2.shape)}"
            )
        with torch.autocast(gps_deg_N2.device.type, enabled=False):
            x_N2 = equal_earth(gps_deg_N2.float())
        return torch.stack([branch(x_N2) for branch in self.branches]).sum(dim=0)
