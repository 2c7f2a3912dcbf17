"""Why a location encoder cannot be built."""

from __future__ import annotations

import math
import os

from geoclip.config import Combine, LocationConfig, LocationKind, Projection


def location_problems(location: LocationConfig) -> list[str]:
    """Reasons why this location encoder cannot be built."""
    problems = []
    for key in ("frequencies", "hidden_dim", "depth", "embedding_dim", "scales", "degree"):
        if getattr(location, key) < 1:
            problems.append(f"location.{key}={getattr(location, key)} must be 1 or more")
    for key in ("sigma_min", "sigma_max", "min_radius_km"):
        value = getattr(location, key)
        if not (math.isfinite(value) and value > 0):
            problems.append(f"location.{key}={value} must be a positive number")
    if location.kind is LocationKind.fourier:
        problems += _hierarchy_problems(location)
    elif location.init:
        problems.append(
            f"location.init={location.init} gives scales to a hierarchy, but location.kind={location.kind.value}"
        )
    if location.kind is LocationKind.spherical_harmonics and location.degree > 100:
        problems.append(
            f"location.degree={location.degree} makes {location.degree**2} harmonics, beyond what float32 can tell "
            "apart; take 100 or less"
        )
    return problems


def _hierarchy_problems(location: LocationConfig) -> list[str]:
    problems = []
    if location.sigmas is None:
        scales = location.scales
        if location.sigma_max < location.sigma_min:
            problems.append(
                f"location.sigma_max={location.sigma_max} must not be below location.sigma_min={location.sigma_min}"
            )
    else:
        scales = len(location.sigmas)
        if not location.sigmas:
            problems.append(
                "location.sigmas=[] needs at least one scale, e.g. location.sigmas=[1,16,256], or null for "
                "location.scales of them from sigma_min to sigma_max"
            )
        if any(not (math.isfinite(sigma) and sigma > 0) for sigma in location.sigmas):
            problems.append(
                f"location.sigmas={location.sigmas} must all be positive numbers, e.g. [1,16,256]"
            )
    if location.combine is Combine.concat and scales and location.embedding_dim % scales:
        problems.append(
            f"location.embedding_dim={location.embedding_dim} does not divide over {scales} scales side by side "
            f"(location.combine=concat); try {location.embedding_dim // scales * scales}"
        )
    if location.init:
        if location.init != "official" and not os.path.exists(location.init):
            problems.append(
                f"location.init={location.init} is neither official nor a run's folder nor a checkpoint's file"
            )
        if location.combine is Combine.concat or location.share_mlp:
            problems.append("location.init needs scales with MLPs of their own that are summed")
        if location.init == "official":
            problems += _released_problems(location)
    elif location.freeze_init:
        problems.append("location.freeze_init=true freezes what location.init brings, and that is empty")
    return problems


def _released_problems(location: LocationConfig) -> list[str]:
    """What differs from the released location encoder's own dimensions."""
    released = {"frequencies": 256, "hidden_dim": 1024, "depth": 3, "embedding_dim": 512}
    problems = [
        f"location.{key}={getattr(location, key)}, but location.init=official has {value}: take location=geoclip"
        for key, value in released.items()
        if getattr(location, key) != value
    ]
    if location.projection is not Projection.equal_earth:
        problems.append("location.init=official is on location.projection=equal_earth")
    return problems
