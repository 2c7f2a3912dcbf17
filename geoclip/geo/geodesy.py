"""Distances and noise on the sphere, on tensors of (latitude, longitude) in degrees, WGS 84."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EARTH_RADIUS_KM = 6371.0088  # mean radius R1, Moritz, "Geodetic Reference System 1980", J. Geodesy 74, 2000
METRES_PER_DEGREE = 1000 * EARTH_RADIUS_KM * math.pi / 180


def haversine_km(a_deg_N2: Tensor, b_deg_N2: Tensor) -> Tensor:
    """(N,) great-circle distances between paired points in km, float64; either side may be (1, 2).

    In [0, 20015.12], on a sphere of radius EARTH_RADIUS_KM.

    Source: Sinnott, "Virtues of the Haversine", Sky & Telescope 68(2), 1984.
    """
    lat_a, lon_a = a_deg_N2.double().deg2rad().unbind(-1)
    lat_b, lon_b = b_deg_N2.double().deg2rad().unbind(-1)
    h = ((lat_b - lat_a) / 2).sin() ** 2 + lat_a.cos() * lat_b.cos() * ((lon_b - lon_a) / 2).sin() ** 2
    return 2 * EARTH_RADIUS_KM * h.clamp(0, 1).sqrt().asin()


def pairwise_km(a_deg_N2: Tensor, b_deg_M2: Tensor) -> Tensor:
    """(N, M) great-circle distances in km, float64, from the chords between points of the unit sphere."""
    chord_NM = torch.cdist(unit_vectors(a_deg_N2), unit_vectors(b_deg_M2), compute_mode="donot_use_mm_for_euclid_dist")
    return 2 * EARTH_RADIUS_KM * (chord_NM / 2).clamp(max=1).asin()


def displaced(gps_deg_N2: Tensor, radius_km: float, count: int, uniform_K2: Tensor) -> Tensor:
    """(N · count, 2) degrees: `count` points at one to two times `radius_km` from each, in random directions.

    `uniform_K2`: (N · count, 2) float64, uniform in [0, 1), for the distance and for the azimuth.
    """
    arc_K, azimuth_K = radius_km / EARTH_RADIUS_KM * (1 + uniform_K2[:, 0]), 2 * math.pi * uniform_K2[:, 1]
    start_K2 = gps_deg_N2.double().repeat_interleave(count, dim=0, output_size=len(uniform_K2))
    return destination(start_K2, arc_K, azimuth_K).to(gps_deg_N2)


def destination(gps_deg_N2: Tensor, arc_N: Tensor, azimuth_N: Tensor) -> Tensor:
    """(N, 2) degrees, float64: the ends of great circles of length `arc_N` in Earth radii.

    `azimuth_N`: their directions at the start, in radians clockwise from north.

    Source: Snyder, "Map Projections: A Working Manual", 1987, eqs. 5-5 and 5-6.
    """
    lat, lon = gps_deg_N2.deg2rad().unbind(-1)
    there_lat = (lat.sin() * arc_N.cos() + lat.cos() * arc_N.sin() * azimuth_N.cos()).clamp(-1, 1).asin()
    east = torch.atan2(
        arc_N.sin() * azimuth_N.sin(), lat.cos() * arc_N.cos() - lat.sin() * arc_N.sin() * azimuth_N.cos()
    )
    return wrap_degrees(torch.stack((there_lat, lon + east), dim=-1).rad2deg())


def unit_vectors(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) degrees -> (N, 3) points on the unit sphere, float64: x towards (0, 0), z towards the north pole."""
    lat, lon = gps_deg_N2.double().deg2rad().unbind(-1)
    return torch.stack((lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()), dim=-1)


def wrap_degrees(gps_deg_N2: Tensor) -> Tensor:
    """(N, 2) finite degrees, continued over poles and the antimeridian -> the same locations in the usual range.

    Latitude is in [-90, 90], longitude in [-180, 180); values already in this range are unchanged.
    """
    lat, lon = gps_deg_N2.unbind(-1)
    turned = torch.remainder(lat + 90, 360)  # 0 at the south pole, 180 at the north pole
    beyond = turned > 180
    reflected = torch.where(beyond, 270 - turned, turned - 90)
    lon = torch.where(beyond, lon + 180, lon)
    wrapped = torch.remainder(lon + 180, 360) - 180
    inside_lat, inside_lon = lat.abs() <= 90, (lon >= -180) & (lon < 180)
    return torch.stack((torch.where(inside_lat, lat, reflected), torch.where(inside_lon, lon, wrapped)), dim=-1)


def jitter(gps_deg_N2: Tensor, noise_m: float, normal_N2: Tensor) -> Tensor:
    """Add Gaussian noise of `noise_m` metres standard deviation to north and to east, independently.

    East is scaled by 1 / cos(latitude), constant within a metre of a pole, where longitude means nothing; the result is
    wrapped by `wrap_degrees`. `normal_N2`: (N, 2) float32 drawn from N(0, 1).

    Source: GeoCLIP, NeurIPS 2023: 150 m on the batch's coordinates, 1000 m on the queue's.
    """
    if noise_m == 0 or gps_deg_N2.shape[0] == 0:
        return gps_deg_N2
    noise_N2 = normal_N2.to(gps_deg_N2)
    north_deg = noise_N2[:, 0] * (noise_m / METRES_PER_DEGREE)
    metre_of_pole = math.radians(1 / METRES_PER_DEGREE)
    east_deg = (
        noise_N2[:, 1] * (noise_m / METRES_PER_DEGREE) / gps_deg_N2[:, 0].deg2rad().cos().clamp(min=metre_of_pole)
    )
    return wrap_degrees(gps_deg_N2 + torch.stack((north_deg, east_deg), dim=-1))


def uniform_on_sphere(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) coordinates in degrees, float32, uniform by area (Archimedes: sin(lat) is uniform)."""
    unit_N2 = torch.rand((count, 2), generator=generator, dtype=torch.float64)
    lat = (2 * unit_N2[:, 0] - 1).asin().rad2deg()
    return torch.stack((lat, 360 * unit_N2[:, 1] - 180), dim=-1).float()


def in_box(gps_deg_N2: NDArray[np.float64], box_deg: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(N,) whether a location is in south, west, north, east, edges included; west > east crosses the antimeridian."""
    south, west, north, east = box_deg
    width_deg = east - west if east >= west else east - west + 360
    beyond_west_N = np.mod(gps_deg_N2[:, 1] - west, 360)
    return (gps_deg_N2[:, 0] >= south) & (gps_deg_N2[:, 0] <= north) & (beyond_west_N <= width_deg)
