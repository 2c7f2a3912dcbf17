"""Set a study's runs side by side: `python -m geoclip.tabulate runs=… by=… benchmark=…`. `--help` shows everything."""

from __future__ import annotations

import glob
import logging
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from geoclip.checks import tabulate_problems
from geoclip.config import TabulateConfig, typed
from geoclip.entry import run_entry_point

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Gather the runs from their JSON and print their table."""
    config = typed(cfg, TabulateConfig, tabulate_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    tabulate(config)


def tabulate(config: TabulateConfig) -> str:
    """The table as Markdown; written to `output`, with its numbers as JSON beside it.

    Raises:
        DataError: a run was not evaluated, or the runs cannot be compared.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from geoclip.drawing.study_table import study_markdown
    from geoclip.evaluation.study import chosen, compare, read_config, read_measured
    from geoclip.run_dir import write_json, write_text

    runs = []
    for found in sorted(glob.glob(f"{config.runs}/config.yaml")):
        folder = Path(found).parent
        said = read_config(folder)
        if all(str(chosen(said, key)) == value for key, value in (config.where or {}).items()):
            runs.append(read_measured(folder, config.benchmark.name))
    variants = compare(runs, config.by, config.baseline)
    text = study_markdown(variants, f"{config.by}, {config.benchmark.name}")
    Console().print(Markdown(text))
    if config.output:
        path = Path(config.output)
        write_text(path, text)
        write_json(
            path.with_suffix(".json"),
            {
                "by": config.by,
                "benchmark": config.benchmark.name,
                "baseline": config.baseline,
                "variants": [asdict(one) for one in variants],
                "runs": [str(run.folder) for run in runs],
            },
        )
        log.info("written: %s and .json", path)
    return text


if __name__ == "__main__":
    run_entry_point("tabulate", TabulateConfig, main)
