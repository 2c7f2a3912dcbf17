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

MOST_DOTS = 200_000  # more do not change the map


def main(cfg: DictConfig) -> None:
    """Check the configuration, then build."""
    config = typed(cfg, GalleryBuildConfig, gallery_build_problems)
    setup_logging()
    build_gallery_file(config)


def build_gallery_file(config: GalleryBuildConfig) -> Path:
    """Build a gallery: CSV, provenance (.json) and map (.png); print its ceilings on the test sets; return the CSV.

    Raises:
        GeoclipError: coordinates cannot be read, none is left, or another gallery exists at output.
    """
    import numpy as np

    from geoclip.evaluation.gallery import measure_ceiling
    from geoclip.prepare.galleries import build_locations, gallery_csv, identity_of, refuse_another, write_gallery

    source = _read_source(config)
    rules = _rules(config)
    excluded = {name: _read_test_set(name) for name in one_or_many(config.exclude)}
    identity = identity_of(source, rules, excluded)
    path = Path(config.output or f"galleries/{config.source.value}-{identity['fingerprint']}.csv")
    refuse_another(path, identity, overwrite=config.overwrite)
    excluded_deg_N2 = np.concatenate([np.empty((0, 2)), *(one.gps_deg_N2 for one in excluded.values())])
    gps_deg_G2, counts = build_locations(source.gps_deg_N2, rules, excluded_deg_N2)
    text = gallery_csv(gps_deg_G2)
    refuse_another(path, identity, text, overwrite=config.overwrite)
    against = {name: _read_test_set(name) for name in one_or_many(config.against)}
    test_sets: dict[str, Any] = {
        name: measure_ceiling(one.gps_deg_N2, gps_deg_G2) | {"made_of": one.made_of}
        for name, one in (excluded | against).items()
    }
    write_gallery(path, text, gps_deg_G2, identity=identity, counts=counts, test_sets=test_sets)
    _draw(gps_deg_G2, path.with_suffix(".png"))
    log.info("%s", ", ".join(f"{stage}: {count:,}" for stage, count in counts.items()))
    log.info("written: %s, .json and .png; to use it: gallery=csv gallery.path=%s", path, path)
    if test_sets:
        from geoclip.plotting.tables import ceiling_table

        show(ceiling_table(test_sets, f"{path.name} ({len(gps_deg_G2):,} locations)"))
    return path


def _rules(config: GalleryBuildConfig) -> GalleryRules:
    from geoclip.data.countries import alpha2_codes
    from geoclip.prepare.galleries import GalleryRules

    countries = one_or_many(config.country)
    return GalleryRules(
        box_deg=(config.box[0], config.box[1], config.box[2], config.box[3]) if config.box else None,
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
    """The coordinates of a benchmark, from its CSV or shards, or of a CSV."""
    from geoclip.data.benchmarks import metadata_file
    from geoclip.prepare.galleries import csv_locations, shard_locations

    benchmark = None if Path(name).is_file() else option("benchmark", name, BenchmarkConfig)
    if benchmark is None:
        return csv_locations(Path(name), "test set")
    if benchmark.kind is BenchmarkKind.shards:
        return shard_locations(benchmark.root, benchmark.split)
    if benchmark.root or Path(benchmark.metadata).is_file():
        found = csv_locations(metadata_file(Path(benchmark.root), benchmark.metadata), f"benchmark {name}")
    else:  # the shards built from it exist, as the configuration's rules check
        found = shard_locations(benchmark.built, "test")
    if benchmark.published_n is not None and len(found.gps_deg_N2) != benchmark.published_n:
        log.warning(
            "%d locations, but %s has %d in publications: not comparable",
            len(found.gps_deg_N2), name, benchmark.published_n,
        )  # fmt: skip
    return found


def _draw(gps_deg_G2: NDArray[np.float64], path: Path) -> None:
    from geoclip.data.blue_marble import map_background
    from geoclip.plotting.maps import draw_distribution

    name = "gallery" if len(gps_deg_G2) <= MOST_DOTS else f"gallery: {MOST_DOTS:,} of {len(gps_deg_G2):,}"
    draw_distribution({name: gps_deg_G2[:MOST_DOTS]}, map_background(), path)


if __name__ == "__main__":
    run_entry_point("gallery", GalleryBuildConfig, main)
