"""Report on a run: `python -m geoclip.report run=RUN`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from geoclip.config import ReportConfig, typed
from geoclip.console import setup_logging
from geoclip.entry import run_entry_point
from geoclip.errors import AssetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the maps' background


def main(cfg: DictConfig) -> None:
    """Draw the run's figures, write its page, and its table as Markdown into eval/table.md."""
    config = typed(cfg, ReportConfig, lambda _: [])
    setup_logging()
    from geoclip.drawing.report_figures import read_results
    from geoclip.drawing.report_page import write_report
    from geoclip.drawing.tables import accuracy_table
    from geoclip.files import write_text_atomic
    from geoclip.run_dir import latest_run

    run = latest_run(config.runs_dir) if config.run == "latest" else Path(config.run)
    log.info("written: %s", write_report(run, background=_background()))
    if results := read_results(run):
        write_text_atomic(run / "eval" / "table.md", accuracy_table(results).markdown())


def _background() -> NDArray[np.uint8]:
    """The Blue Marble, or plain night where it is out of reach: the report stands without coasts."""
    import numpy as np

    from geoclip.data.blue_marble import read_earth

    try:
        return read_earth(EARTH_PX)
    except AssetError as error:
        log.warning("maps without a background: %s", error)
        return np.zeros((2, 4, 3), dtype=np.uint8)


if __name__ == "__main__":
    run_entry_point("report", ReportConfig, main)
