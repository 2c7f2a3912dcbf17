"""Probe an embedding: `python -m geoclip.probe checkpoint=official`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.checks import probe_problems
from geoclip.config import ProbeConfig, typed
from geoclip.console import setup_logging, show
from geoclip.entry import run_entry_point

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then probe."""
    config = typed(cfg, ProbeConfig, probe_problems)
    setup_logging()
    probe(config)


def probe(config: ProbeConfig) -> Path:
    """Measure what a location encoder knows beside what coordinates tell; print the table, write JSON, table, figure.

    Returns:
        The JSON's path.

    Raises:
        GeoclipError: the checkpoint or a map cannot be read.
    """
    from geoclip.build.location import open_location_encoder
    from geoclip.distributed import initialise
    from geoclip.drawing.probe_figure import draw_probe
    from geoclip.drawing.probe_table import probe_table
    from geoclip.evaluation.probe_tasks import (
        baseline_features,
        embedding_features,
        measure_probe,
        probe_places,
    )
    from geoclip.files import write_text_atomic
    from geoclip.model.location_encoder import LocationEncoder
    from geoclip.run_dir import provenance, saving, write_json

    device = initialise(config.device).device
    opened = open_location_encoder(config)
    features = baseline_features(config.seed, device)
    features["GeoCLIP, released"] = embedding_features(LocationEncoder.from_pretrained("official").to(device))
    if config.checkpoint != "official":
        features[opened.name] = embedding_features(opened.encoder.to(device))
    tasks = measure_probe(probe_places(config.places, config.seed), features, config.seed)
    result = {
        "model": opened.name,
        "checkpoint_sha256": opened.sha256,
        "seed": config.seed,
        "places": config.places,
        "tasks": tasks,
        "provenance": provenance(),
    }
    folder = Path(config.output) if config.output else opened.folder / "probe"
    table = probe_table(result)
    show(table.rich())
    with saving(folder):
        write_text_atomic(folder / "probe.md", table.markdown())
        draw_probe(result, folder / "probe.png")
        write_json(folder / "probe.json", result)
    log.info("written: %s, probe.md and probe.png", folder / "probe.json")
    return folder / "probe.json"


if __name__ == "__main__":
    run_entry_point("probe", ProbeConfig, main)
