"""Equal Earth against its closed form, and Fourier features against their sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pyproj import Proj

from geoclip.geo.encodings import equal_earth, fourier_features, random_frequencies


def test_the_map_has_the_stated_extent() -> None:
    corners = equal_earth(torch.tensor([[0.0, 180.0], [0.0, -180.0], [90.0, 0.0], [-90.0, 0.0]]))
    assert corners[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert corners[1].tolist() == pytest.approx([-1.0, 0.0], abs=1e-5)
    assert corners[2].tolist() == pytest.approx([0.0, 0.4867], abs=1e-4)
    assert corners[3].tolist() == pytest.approx([0.0, -0.4867], abs=1e-4)


def test_it_is_the_equal_earth_of_proj() -> None:
    rng = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, 1000))), rng.uniform(-180, 180, 1000)
    x, y = Proj(proj="eqearth", R=1)(lon, lat)
    ours = equal_earth(torch.tensor(np.stack((lat, lon), axis=1)))
    torch.testing.assert_close(ours, torch.tensor(np.stack((x, y), axis=1)) * 66.50336 / 180, atol=1e-6, rtol=0)


def test_fourier_features_are_cosines_then_sines() -> None:
    x, freq = torch.tensor([[0.25, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    phases = [2 * math.pi * value for value in (0.25, 0.5, 0.0)]
    expected = [*(math.cos(p) for p in phases), *(math.sin(p) for p in phases)]
    torch.testing.assert_close(fourier_features(x, freq), torch.tensor([expected]), atol=1e-6, rtol=0)


def test_sigma_is_the_spread_of_the_frequencies() -> None:
    freq = random_frequencies(20_000, 16.0, generator=torch.Generator().manual_seed(0))
    assert freq.shape == (20_000, 2)
    assert freq.std().item() == pytest.approx(16, rel=0.02)
