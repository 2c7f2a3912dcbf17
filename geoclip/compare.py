"""Compare two runs: `python -m geoclip.compare a=runs/A b=runs/B benchmark=…`; `--help` explains every key."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import CompareConfig, compare_problems, typed
from geoclip.system.console import setup_logging, show

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then compare."""
    config = typed(cfg, CompareConfig, compare_problems)
    setup_logging()
    compare(config)


def compare(config: CompareConfig) -> Path:
    """Compare two runs; print the table, write the JSON and the figure; returns the JSON's path.

    Raises:
        DataError: an evaluation cannot be read, or the two cannot be compared.
    """
    from geoclip.evaluation.comparison import compare_images, paired, read_images
    from geoclip.evaluation.significance import RESAMPLES
    from geoclip.plotting.comparison import comparison_table, draw_comparison
    from geoclip.runs.run_dir import saving, write_json

    complete = [read_images(Path(run), config.benchmark.name) for run in (config.a, config.b)]
    a, b = paired(*complete, force=config.force)
    found = {
        "benchmark": config.benchmark.name,
        "a": a.run,
        "b": b.run,
        "n": len(a.keys),
        "left_out": [len(one.keys) - len(a.keys) for one in complete],
        "protocol": a.setting["protocol"],
        "settings": [a.setting, b.setting],
        "resamples": RESAMPLES,
        "seed": config.seed,
        "differences": {name: asdict(one) for name, one in compare_images(a, b, seed=config.seed).items()},
    }
    name = f"compare-{a.run}-{config.benchmark.name}"
    path = Path(config.b) / "eval" / f"{name}.json"
    show(comparison_table(found))
    if any(found["left_out"]):
        log.warning("compared on %d images; %d of a and %d of b are left out", found["n"], *found["left_out"])
    if a.setting != b.setting:
        log.warning("force=true: %s and %s were measured with %s and %s", a.run, b.run, a.setting, b.setting)
    with saving(path):
        write_json(path, found)
        draw_comparison(found, Path(config.b) / "figures" / f"{name}.png")
    log.info("written: %s, figures/%s.png", path, name)
    return path


if __name__ == "__main__":
    run_entry_point("compare", CompareConfig, main)
