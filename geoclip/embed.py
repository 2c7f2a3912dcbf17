"""Embed coordinates: `python -m geoclip.embed input=coordinates.csv`; `--help` explains every key."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import EmbedConfig, embed_output, embed_problems, typed
from geoclip.system.console import setup_logging

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then embed."""
    config = typed(cfg, EmbedConfig, embed_problems)
    setup_logging()
    embed(config)


def embed(config: EmbedConfig) -> Path:
    """Embed every row of a table into one file; returns its path.

    Raises:
        GeoclipError: the checkpoint or the table cannot be read, or a row is not a location on Earth.
    """
    from geoclip.distributed import initialise
    from geoclip.factory.loading import read_location_encoder
    from geoclip.inference.embedding_tables import embed_table
    from geoclip.pretrained.resolver import resolve_checkpoint

    output = embed_output(config)
    checkpoint = resolve_checkpoint(config.checkpoint, config.runs_dir)
    encoder = read_location_encoder(checkpoint).to(initialise(config.device).device)
    rows, dim = embed_table(
        encoder, Path(config.input), output, normalise=config.normalise, batch_size=config.batch_size
    )
    log.info("written: %s, %s locations by %s in %d dimensions", output, f"{rows:,}", checkpoint.name, dim)
    return output


if __name__ == "__main__":
    run_entry_point("embed", EmbedConfig, main)
