"""Build webdataset shards: `python -m geoclip.shards source=bluemarble`. `--help` shows everything."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from geoclip.checks import shards_problems
from geoclip.config import ShardsConfig, ShardSource, typed
from geoclip.entry import run_entry_point

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then build."""
    config = typed(cfg, ShardsConfig, shards_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    match config.source:
        case ShardSource.bluemarble:
            from geoclip.build import build_blue_marble_data

            built = build_blue_marble_data(config.root, config.bluemarble, overwrite=config.overwrite)
    log.info(
        "%s at %s; what is in them: %s/README.md",
        "shards built" if built else "shards stand already",
        config.root,
        config.root,
    )


if __name__ == "__main__":
    run_entry_point("shards", ShardsConfig, main)
