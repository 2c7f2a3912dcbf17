"""Build a gallery of coordinates: `python -m geoclip.gallery source=… size=…`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import (
    BenchmarkConfig,
    BenchmarkKind,
    GalleryBuildConfig,
    PlacesSource,
    gallery_build_problems,
    one_or_many,
    option,
    typed,
)
from geoclip.system.console import setup_logging, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from geoclip.prepare.galleries import GalleryRules, SourcedPlaces

log = logging.getLogger("geoclip")

MOST_DOTS = 200_000  # a map of more shows no more


def main(cfg: DictConfig) -> None:
    """Check the configuration, then build."""
    config = typed(cfg, GalleryBuildConfig, gallery_build_problems)
    setup_logging()
    build_gallery_file(config)


def build_gallery_file(config: GalleryBuildConfig) -> Path:
    """Build one gallery: the CSV, its provenance as .json and its map as .png; print what it allows on the test sets.

    Returns:
        The CSV's path.

    Raises:
        GeoclipError: coordinates cannot be read, nothing is left, or another gallery stands there.
    """
    import numpy as np

    from geoclip.prepare.galleries import build_locations, gallery_csv, identity_of, refuse_another, write_gallery

    source = _read_source(config)
    rules = _rules(config)
    excluded = {name: _read_test_set(name) for name in one_or_many(config.exclude)}
    identity = identity_of(source, rules, excluded)
    path = Path(config.output or f"galleries/{config.source.value}-{identity['fingerprint']}.csv")
    refuse_another(path, identity, overwrite=config.overwrite)
    apart_from = np.concatenate([np.empty((0, 2)), *(places.gps_deg_N2 for places in excluded.values())])
    places, counts = build_locations(source.gps_deg_N2, rules, apart_from)
    text = gallery_csv(places)
    refuse_another(path, identity, text, overwrite=config.overwrite)
    against = {name: _read_test_set(name) for name in one_or_many(config.against)}
    test_sets = _measure(excluded | against, places)
    write_gallery(path, text, places, identity=identity, counts=counts, test_sets=test_sets)
    _draw(places, path.with_suffix(".png"))
    log.info("%s", ", ".join(f"{stage}: {count:,}" for stage, count in counts.items()))
    log.info("written: %s, .json and .png; use it: gallery=csv gallery.path=%s", path, path)
    if test_sets:
        from geoclip.plotting.tables import ceiling_table

        show(ceiling_table(test_sets, f"{path.name} ({len(places):,} places)"))
    return path


def _rules(config: GalleryBuildConfig) -> GalleryRules:
    from geoclip.data.countries import alpha2_codes
    from geoclip.prepare.galleries import GalleryRules

    south_west_north_east = tuple(config.box)
    countries = one_or_many(config.country)
    return GalleryRules(
        box_deg=south_west_north_east if len(south_west_north_east) == 4 else None,
        countries=alpha2_codes(countries) if countries else (),
        exclude_radius_km=config.exclude_radius_km,
        radius_km=config.radius_km,
        size=config.size,
        seed=config.seed,
    )


def _read_source(config: GalleryBuildConfig) -> SourcedPlaces:
    from geoclip.prepare.galleries import csv_locations, released_locations, shard_locations

    match config.source:
        case PlacesSource.released_100k:
            return released_locations()
        case PlacesSource.csv:
            return csv_locations(Path(config.path), "source")
        case PlacesSource.shards:
            return shard_locations(config.path)


def _read_test_set(name: str) -> SourcedPlaces:
    """The coordinates of a benchmark, from its CSV or its shards alone, or of a CSV that is named itself."""
    from geoclip.data.benchmarks import metadata_file
    from geoclip.prepare.galleries import csv_locations, shard_locations

    benchmark = None if Path(name).is_file() else option("benchmark", name, BenchmarkConfig)
    if benchmark is None:
        return csv_locations(Path(name), "test set")
    if benchmark.kind is BenchmarkKind.shards:
        return shard_locations(benchmark.root, benchmark.split)
    if benchmark.root or Path(benchmark.metadata).is_file():
        found = csv_locations(metadata_file(Path(benchmark.root), benchmark.metadata), f"benchmark {name}")
    else:  # as checked, the shards that were built of it are there
        found = shard_locations(benchmark.built, "test")
    if benchmark.published_n is not None and len(found.gps_deg_N2) != benchmark.published_n:
        log.warning(
            "%d places, but %s as published has %d: not comparable",
            len(found.gps_deg_N2), name, benchmark.published_n,
        )  # fmt: skip
    return found


def _measure(test_sets: dict[str, SourcedPlaces], places: NDArray[np.float64]) -> dict[str, Any]:
    from geoclip.evaluation.gallery import measure_ceiling

    return {
        name: measure_ceiling(found.gps_deg_N2, places) | {"made_of": found.made_of}
        for name, found in test_sets.items()
    }


def _draw(places: NDArray[np.float64], path: Path) -> None:
    from geoclip.data.blue_marble import map_background
    from geoclip.plotting.maps import draw_distribution

    name = "gallery" if len(places) <= MOST_DOTS else f"gallery: {MOST_DOTS:,} of {len(places):,}"
    draw_distribution({name: places[:MOST_DOTS]}, map_background(), path)


if __name__ == "__main__":
    run_entry_point("gallery", GalleryBuildConfig, main)
