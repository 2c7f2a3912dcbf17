"""Export the location encoder: `python -m geoclip.export format=onnx`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import ExportConfig, export_problems, typed
from geoclip.system.console import setup_logging

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then export."""
    config = typed(cfg, ExportConfig, export_problems)
    setup_logging()
    export(config)


def export(config: ExportConfig) -> tuple[Path, float]:
    """Write a location encoder, read it back, and compare its embeddings with the encoder's.

    Returns:
        The path, and the largest difference of an embedding's number.

    Raises:
        GeoclipError: the checkpoint cannot be read, or this format cannot store its encoder.
    """
    from geoclip.data.tables import read_gps_deg
    from geoclip.factory.loading import read_location_encoder
    from geoclip.pretrained import exporting
    from geoclip.pretrained.resolver import resolve_checkpoint

    checkpoint = resolve_checkpoint(config.checkpoint, config.runs_dir)
    encoder = read_location_encoder(checkpoint)
    output = Path(config.output)
    if config.compare_on:
        gps_deg_N2 = read_gps_deg(Path(config.compare_on), "compare_on")
    else:
        gps_deg_N2 = exporting.comparison_deg()
    write, read_back = exporting.FORMATS[config.format.value]
    write(encoder, output)
    exported = read_back(output)
    difference = exporting.largest_difference(encoder, exported, gps_deg_N2)
    log.info("written: %s, the location encoder of %s", output, checkpoint.name)
    log.info("read back: embeddings of %s locations differ by at most %.1e", f"{len(gps_deg_N2):,}", difference)
    return output, difference


if __name__ == "__main__":
    run_entry_point("export", ExportConfig, main)
