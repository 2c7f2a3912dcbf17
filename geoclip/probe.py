"""Probe an embedding: `python -m geoclip.probe checkpoint=official`; `--help` explains every key."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import ProbeConfig, probe_problems, typed
from geoclip.system.console import setup_logging, show

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then probe."""
    config = typed(cfg, ProbeConfig, probe_problems)
    setup_logging()
    probe(config)


def probe(config: ProbeConfig) -> Path:
    """Probe a location encoder and plain functions of coordinates; write table, figure and JSON; returns its path.

    Raises:
        GeoclipError: the checkpoint or a map cannot be read.
    """
    from geoclip.distributed import initialise
    from geoclip.evaluation.probing import baseline_features, embedding_features, measure_probe, probe_locations
    from geoclip.factory.loading import read_location_encoder
    from geoclip.plotting.probes import draw_probe, probe_table
    from geoclip.pretrained.resolver import resolve_checkpoint
    from geoclip.runs.run_dir import provenance, saving, write_json
    from geoclip.system.files import sha256_of, write_text_atomic

    device = initialise(config.device).device
    checkpoint = resolve_checkpoint(config.checkpoint, config.runs_dir)
    features = baseline_features(config.seed, device)
    features["GeoCLIP, released"] = embedding_features(read_location_encoder(resolve_checkpoint("official")).to(device))
    if config.checkpoint != "official":
        features[checkpoint.name] = embedding_features(read_location_encoder(checkpoint).to(device))
    tasks = measure_probe(probe_locations(config.places, config.seed), features, config.seed)
    result = {
        "model": checkpoint.name,
        "checkpoint_sha256": sha256_of(checkpoint.files[0]),
        "seed": config.seed,
        "places": config.places,
        "tasks": tasks,
        "provenance": provenance(),
    }
    folder = Path(config.output) if config.output else checkpoint.results / "probe"
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
