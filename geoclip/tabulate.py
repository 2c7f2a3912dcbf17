"""Set a study's runs side by side: `python -m geoclip.tabulate runs/NAME-*`. `--help` shows everything."""

from __future__ import annotations

import glob
import logging
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from geoclip.config import TabulateConfig, tabulate_problems, typed
from geoclip.console import setup_logging, show
from geoclip.entry import run_entry_point

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Gather the runs from their JSON and print their tables."""
    config = typed(cfg, TabulateConfig, tabulate_problems)
    setup_logging()
    tabulate(config)


def tabulate(config: TabulateConfig) -> dict[str, Any]:
    """Print a table for every benchmark; write them, and all their numbers, into `output`.

    Returns:
        The contents of results.json.

    Raises:
        DataError: a run was not evaluated, or the runs cannot be compared.
    """
    from geoclip.drawing.study_table import study_rich, write_tables
    from geoclip.evaluation.study import study_results
    from geoclip.run_dir import write_json

    results = study_results(
        folders(config.runs),
        by=config.by,
        baseline=config.baseline,
        benchmarks=config.benchmarks,
        where=config.where,
        allow=config.allow,
        with_references=config.references,
        seed=config.seed,
    )
    for benchmark in results["benchmarks"]:
        show(*study_rich(results, benchmark))
    for note in results["notes"]:
        log.warning("%s", note)
    if config.output:
        folder = Path(config.output)
        write_json(folder / "results.json", results, indent=None)
        write_tables(results, folder)
        log.info("written: %s, with .md, .tex and .csv", folder / "results.json")
    return results


def folders(runs: Any) -> list[Path]:
    """The run folders that a pattern, or a list of folders and patterns, names."""
    patterns = [runs] if isinstance(runs, str) else runs
    found = (Path(path) for pattern in patterns for path in glob.glob(str(pattern)))
    return sorted({path for path in found if (path / "config.yaml").is_file()})


def with_positional_runs(arguments: list[str]) -> list[str]:
    """Arguments that are neither options nor overrides name runs: they become one `runs=[…]`."""
    named = [said for said in arguments if not said.startswith("-") and "=" not in said]
    if not named:
        return arguments
    quoted = ",".join("'" + path.replace("'", "\\'") + "'" for path in named)
    return [*(said for said in arguments if said not in named), f"runs=[{quoted}]"]


if __name__ == "__main__":
    sys.argv[1:] = with_positional_runs(sys.argv[1:])
    run_entry_point("tabulate", TabulateConfig, main)
