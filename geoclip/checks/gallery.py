"""Why a gallery cannot be built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geoclip.config import BenchmarkConfig, BenchmarkKind, GalleryBuildConfig, PlacesSource, option, options


def gallery_build_problems(config: GalleryBuildConfig) -> list[str]:
    """Every reason why this gallery cannot be built, each with its cure."""
    problems = [*_source_problems(config), *box_problems(config.box)]
    for key in ("exclude_radius_km", "radius_km"):
        if not 0 <= getattr(config, key) <= 20_000:
            problems.append(f"{key}={getattr(config, key)} must lie in [0, 20000] km")
    if config.exclude_radius_km and not config.exclude:
        problems.append("exclude_radius_km needs test sets to keep away from: exclude=[yfcc4k,im2gps3k]")
    if config.size is not None and config.size < 1:
        problems.append(f"size={config.size} must be 1 or more, or null for all")
    if config.output and Path(config.output).suffix.lower() != ".csv":
        problems.append(
            f"output={config.output} must be the name of a .csv; a .json and a .png come beside it"
        )
    problems += country_problems(config.country)
    for key in ("exclude", "against"):
        for name in one_or_many(getattr(config, key)):
            problems += _test_set_problems(key, name)
    return problems


def one_or_many(value: Any) -> list[str]:
    """What was given as one name or as a list of names, as a list."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)] if value else []


def _source_problems(config: GalleryBuildConfig) -> list[str]:
    match config.source:
        case PlacesSource.released_100k:
            if config.path:
                return [
                    f"path={config.path} is read with source=csv or source=shards; source=released_100k has none"
                ]
        case PlacesSource.csv:
            if not os.path.isfile(config.path):
                return [
                    f"path={config.path} must be a CSV with columns for latitude and longitude; source=csv reads it"
                ]
        case PlacesSource.shards:
            if not config.path:
                return [
                    "path='' must name the shards: path=FOLDER/train, or path='FOLDER/mp-16-{000000..000393}.tar'"
                ]
    return []


def country_problems(country: Any) -> list[str]:
    """Reasons why these are no countries."""
    return [
        f"country={name} must be an ISO 3166 code of two or three letters, e.g. FR or [FR,DEU]"
        for name in one_or_many(country)
        if len(name.strip()) not in (2, 3) or not name.strip().isalpha()
    ]


def box_problems(box: list[float]) -> list[str]:
    """Reasons why this is no box."""
    if not box:
        return []
    if len(box) != 4:
        return [f"box={box} must have four numbers: [south,west,north,east] in degrees"]
    south, west, north, east = box
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        return [
            f"box={box} must be [south,west,north,east] in degrees, -90 <= south <= north <= 90 and west, east in "
            "[-180, 180]; a box over the antimeridian has west > east"
        ]
    return []


def _test_set_problems(key: str, name: str) -> list[str]:
    if os.path.isfile(name):
        return []
    benchmark = option("benchmark", name, BenchmarkConfig)
    if benchmark is None:
        return [
            f"{key}={name} is neither a CSV nor a benchmark; benchmarks are {', '.join(options('benchmark'))}"
        ]
    if benchmark.kind is BenchmarkKind.photos and os.path.isfile(benchmark.metadata):
        return []
    if benchmark.built and not benchmark.root and os.path.isfile(f"{benchmark.built}/test/index.json"):
        return []
    if not benchmark.root:
        return [
            f"{key}={name} has no coordinates: set {benchmark.variable}=FOLDER to the folder of its CSV, or name the "
            f"CSV itself, {key}=[FILE.csv]. {benchmark.source}"
        ]
    if not os.path.isdir(benchmark.root):
        return [f"{key}={name}: {benchmark.root} is no folder; name its CSV instead, {key}=[FILE.csv]"]
    return []
