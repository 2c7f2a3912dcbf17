"""Report on a run: `python -m geoclip.report run=RUN`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import ReportConfig, typed
from geoclip.system.console import setup_logging

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Draw the run's figures, write its page, and its table as Markdown into eval/table.md."""
    config = typed(cfg, ReportConfig, lambda _: [])
    setup_logging()
    from geoclip.data.blue_marble import map_background
    from geoclip.plotting.report import read_results, write_report
    from geoclip.plotting.tables import accuracy_table
    from geoclip.runs.run_dir import latest_run
    from geoclip.system.files import write_text_atomic

    run = latest_run(config.runs_dir) if config.run == "latest" else Path(config.run)
    log.info("written: %s", write_report(run, background=map_background()))
    if results := read_results(run):
        write_text_atomic(run / "eval" / "table.md", accuracy_table(results).markdown())


if __name__ == "__main__":
    run_entry_point("report", ReportConfig, main)
