"""Build webdataset shards: `python -m geoclip.shards source=bluemarble`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import ShardsConfig, ShardSource, shards_problems, shards_root, typed
from geoclip.system.console import setup_logging, show

if TYPE_CHECKING:
    from geoclip.prepare.sources import ShardSource as Source

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then build or inspect."""
    config = typed(cfg, ShardsConfig, shards_problems)
    setup_logging()
    if config.inspect:
        inspect(Path(config.inspect), config.workers, config.max_pixels)
        return
    root = shards_root(config)
    try:
        built = build(config, Path(root))
    except KeyboardInterrupt:
        log.info("stopped; rerun the command to resume")
        raise
    log.info("%s: %s; contents: %s/README.md", root, "shards built" if built else "shards exist already", root)


def inspect(root: Path, workers: int, max_pixels: int) -> None:
    """Verify and summarise the shards at `root`; a DataError if they have faults."""
    from geoclip.data.blue_marble import map_background
    from geoclip.errors import DataError
    from geoclip.plotting.maps import draw_distribution
    from geoclip.prepare.inspection import inspect_shards, inspection_table

    summary = inspect_shards(root, workers or None, max_pixels)
    if summary.drawn:
        draw_distribution(summary.drawn, map_background(), Path(summary.written).with_suffix(".png"))
    show(inspection_table(summary))
    log.info("written: %s and .png", summary.written)
    if summary.complaint:
        raise DataError(summary.complaint)


def build(config: ShardsConfig, root: Path) -> bool:
    """Build the shards at `root`; False if they exist. A GeoclipError if they cannot be built."""
    if config.benchmark is None and config.source is ShardSource.bluemarble:
        from geoclip.factory.data import build_blue_marble_data

        return build_blue_marble_data(str(root), config.bluemarble, overwrite=config.overwrite)
    from geoclip.data.workers import cores
    from geoclip.prepare.build_report import Published
    from geoclip.prepare.shard_building import BuildSettings, build_shards

    benchmark, published = config.benchmark, None
    if benchmark:
        published = Published(name=benchmark.name, samples=benchmark.published_n, source=benchmark.source)
    return build_shards(
        root,
        _source(config),
        BuildSettings(
            split="test" if benchmark and config.split == "train" else config.split,
            val_samples=config.val_samples,
            samples_per_shard=config.samples_per_shard,
            max_side_px=config.max_side_px,
            jpeg_quality=config.jpeg_quality,
            seed=config.seed,
        ),
        workers=config.workers or cores(),
        max_rejected_fraction=config.max_rejected_fraction,
        max_pixels=config.max_pixels,
        overwrite=config.overwrite,
        published=published,
    )


def _source(config: ShardsConfig) -> Source:
    """The rows and pictures to build from."""
    from geoclip.data.benchmarks import metadata_file
    from geoclip.data.picture_sources import open_pictures
    from geoclip.data.shards import find_shards, refuse_skipped_shards
    from geoclip.data.tables import Columns
    from geoclip.prepare.sources import TableSource, TarSource

    if config.benchmark is None and config.source is ShardSource.wds:
        tars = find_shards("", config.input, "set input")
        refuse_skipped_shards(tars, config.max_rejected_fraction, "max_rejected_fraction")
        return TarSource(paths=tars.paths, skipped=tars.skipped, key_field=config.columns.key)
    named = Columns(key=config.columns.key, lat=config.columns.lat, lon=config.columns.lon)
    if config.benchmark is not None:
        folder = Path(config.benchmark.root)
        table = metadata_file(folder, config.benchmark.metadata)
        return TableSource(table=table, pictures=open_pictures(folder), named=named)
    table = Path(config.input)
    return TableSource(table=table, pictures=open_pictures(Path(config.images or table.parent)), named=named)


if __name__ == "__main__":
    run_entry_point("shards", ShardsConfig, main)
