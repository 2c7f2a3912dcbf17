"""Distances and noise on the sphere."""

from __future__ import annotations

import math

import pytest
import torch

from geoclip.geo.geodesy import EARTH_RADIUS_KM, haversine_km, jitter, uniform_on_sphere, unit_vectors, wrap_degrees


def degrees(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_dateline_is_not_far_away() -> None:
    assert haversine_km(degrees((0, 179.9)), degrees((0, -179.9))).item() == pytest.approx(22.24, abs=0.01)


def normal(count: int, seed: int) -> torch.Tensor:
    return torch.randn((count, 2), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((0, 0), (0, 0), 0.0),
        ((90, 0), (-90, 77), math.pi * EARTH_RADIUS_KM),
        ((0, 0), (0, 180), math.pi * EARTH_RADIUS_KM),
        ((90, 12), (90, -140), 0.0),
        ((0, 0), (0, 1), math.pi * EARTH_RADIUS_KM / 180),
        ((48.8566, 2.3522), (51.5074, -0.1278), 343.56),  # Paris to London
    ],
)
def test_known_distances(a: tuple[float, float], b: tuple[float, float], km: float) -> None:
    assert haversine_km(degrees(a), degrees(b)).item() == pytest.approx(km, abs=0.01)


def test_haversine_is_the_angle_between_unit_vectors() -> None:
    a, b = (uniform_on_sphere(500, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    angle = (unit_vectors(a) * unit_vectors(b)).sum(dim=1).clamp(-1, 1).acos()
    torch.testing.assert_close(haversine_km(a, b), EARTH_RADIUS_KM * angle, atol=1e-3, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "wrapped"),
    [
        ((91, 10), (89, -170)),
        ((-91, 10), (-89, -170)),
        ((10, 181), (10, -179)),
        ((10, -180.5), (10, 179.5)),
        ((95, 175), (85, -5)),
        ((12.3456, -45.6789), (12.3456, -45.6789)),
        ((90, 0), (90, 0)),
        ((10, 180), (10, -180)),
    ],
)
def test_coordinates_beyond_the_map_are_wrapped(given: tuple[float, float], wrapped: tuple[float, float]) -> None:
    torch.testing.assert_close(wrap_degrees(degrees(given)), degrees(wrapped), atol=1e-4, rtol=0)


@pytest.mark.parametrize("location", [(0.0, 0.0), (60.0, 25.0), (-85.0, 100.0), (45.0, 179.9999)])
def test_noise_is_in_metres_everywhere(location: tuple[float, float]) -> None:
    start = torch.tensor([location]).double().repeat(20_000, 1)
    moved = jitter(start, 1000.0, normal(len(start), 0))
    off_km = haversine_km(start, moved)
    assert off_km.square().mean().sqrt().item() == pytest.approx(math.sqrt(2), rel=0.02)  # 1 km on each of two axes
    assert moved[:, 0].abs().max() <= 90
    assert moved[:, 1].min() >= -180 and moved[:, 1].max() < 180


def test_noise_at_the_pole_stays_near_the_pole() -> None:
    start = torch.tensor([[90.0, 0.0]]).repeat(1000, 1)
    moved = jitter(start, 150.0, normal(len(start), 0))
    assert haversine_km(start, moved).max() < 1.0
    assert torch.isfinite(moved).all()


def test_no_noise_moves_nothing() -> None:
    start = degrees((10, 20), (30, 40))
    assert torch.equal(jitter(start, 0.0, normal(2, 7)), start)
    assert not torch.equal(jitter(start, 100.0, normal(2, 7)), start)


def test_uniform_on_the_sphere_by_area() -> None:
    locations = uniform_on_sphere(50_000, torch.Generator().manual_seed(0))
    assert unit_vectors(locations).mean(dim=0).abs().max() < 0.01
    assert (locations[:, 0].abs() < 30).float().mean().item() == pytest.approx(0.5, abs=0.01)  # sin 30° = 1/2
