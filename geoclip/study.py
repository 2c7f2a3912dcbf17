"""From a study's runs to its tables, figures and page: `python -m geoclip.study name=…`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from geoclip.checks import study_problems
from geoclip.config import StudyPageConfig, typed
from geoclip.entry import run_entry_point

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then evaluate, tabulate, draw and write."""
    config = typed(cfg, StudyPageConfig, study_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if config.name:
        write_study(config)
    write_pages(Path(config.experiments))


def write_study(config: StudyPageConfig) -> Path:
    """Evaluate what is missing; write results, tables, figures, and the generated blocks of the README.

    Returns:
        The study's folder.

    Raises:
        GeoclipError: runs that cannot be evaluated or compared.
    """
    from geoclip.build.study import draw_study
    from geoclip.drawing.study_readme import fill_generated
    from geoclip.drawing.study_table import study_markdown, write_tables
    from geoclip.evaluation.published import references
    from geoclip.evaluation.study import study_results
    from geoclip.evaluation.study_runs import read_config
    from geoclip.run_dir import is_finished, write_json, write_text
    from geoclip.study_evaluations import evaluate_all, missing_evaluations

    (folder,) = Path(config.experiments).glob(f"[0-9]*_{config.name}")
    runs = sorted(path.parent for path in Path(config.runs_dir).glob(f"{config.name}-*/config.yaml"))
    configs = {run: read_config(run) for run in runs if is_finished(run)}
    evaluate_all(missing_evaluations(configs, config.device), config.jobs)
    results = study_results(runs, allow=config.allow)
    results["setting"] |= {"runs": len(configs), "training_minutes": _training_minutes(list(configs))}
    published = {name: references(name) if config.references else [] for name in results["benchmarks"]}
    for note in results["notes"]:
        log.warning("%s", note)
    write_json(folder / "results.json", results)
    write_tables(results, folder, published)
    figures = draw_study(results, folder)
    tables = [
        f"### {name}\n\n{study_markdown(results, name, published[name])}" for name in results["benchmarks"]
    ]
    pictures = [f"![{text}]({path.name})\n" for path, text in figures]
    blocks = {"cost": _cost(results["setting"]), "tables": "\n".join([*tables, *pictures])}
    readme = folder / "README.md"
    write_text(readme, fill_generated(readme.read_text(encoding="utf-8"), blocks))
    log.info("written: %s", folder)
    return folder


def write_pages(experiments: Path) -> None:
    """The page of every study that has results, and their index."""
    from geoclip.drawing.study_page import write_index, write_study_page

    for results in sorted(experiments.glob("[0-9]*/results.json")):
        write_study_page(results.parent)
    log.info("written: %s", write_index(experiments))


def _training_minutes(runs: list[Path]) -> float:
    """Of all runs together, without validation: the samples of every row over its throughput."""
    from geoclip.recorder import read_rows

    seconds = 0.0
    for run in runs:
        before = 0
        for row in read_rows(run / "metrics.jsonl"):
            if row["kind"] == "train":
                seconds += (row["samples"] - before) / row["samples_per_s"]
                before = row["samples"]
    return seconds / 60


def _cost(setting: dict[str, Any]) -> str:
    machine, versions = setting["machine"], setting["versions"]
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {gpu}; torch {versions['torch']}, Python "
        f"{versions['python']}. {setting['runs']} runs of {setting['samples']:,} samples at revision "
        f"`{setting['revision']}`, evaluated at `{setting['evaluation_revision']}`; "
        f"{setting['training_minutes']:.0f} minutes of training in all, on a machine shared with other work.\n"
    )


if __name__ == "__main__":
    run_entry_point("study", StudyPageConfig, main)
