"""Tables and figures of a study from its runs: `python -m geoclip.study name=…`. `--help` shows every key."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import (
    BenchmarkConfig,
    BenchmarkKind,
    ConfigError,
    EvaluateConfig,
    GalleryConfig,
    GalleryKind,
    LoggerMode,
    StudyCommandConfig,
    Tta,
    evaluate_problems,
    option,
    options,
    study_problems,
    typed,
)
from geoclip.system.console import markdown_text, setup_logging, show

log = logging.getLogger("geoclip")

EVALUATION_S = 24 * 3600.0  # an evaluation without progress for so long counts as stopped


def main(cfg: DictConfig) -> None:
    """Check the configuration; then evaluate, draw and write a study, or print the tables of runs."""
    config = typed(cfg, StudyCommandConfig, study_problems)
    setup_logging()
    if config.runs:
        print_tables(config)
        return
    if config.name:
        write_study(config)
    write_lists(Path(config.experiments))


def write_study(config: StudyCommandConfig) -> Path:
    """Run missing evaluations; write results, tables, figures, and the README's generated blocks; returns the folder.

    Raises:
        GeoclipError: runs that cannot be evaluated or compared.
    """
    from geoclip.runs.run_dir import is_finished, write_json
    from geoclip.studies.figures import draw_study
    from geoclip.studies.readme import fill_generated
    from geoclip.studies.results import read_config, study_results
    from geoclip.studies.tables import study_markdown, write_tables
    from geoclip.system.files import write_text_atomic

    (folder,) = Path(config.experiments).glob(f"[0-9][0-9]_{config.name}")
    runs = sorted(path.parent for path in Path(config.runs_dir).glob(f"{config.name}-*/config.yaml"))
    configs = {run: read_config(run) for run in runs if is_finished(run)}
    _evaluate_all(_missing_evaluations(configs, config.device), config.jobs)
    results = study_results(runs, allow=config.allow, with_references=config.references)
    results["setting"] |= {"runs": len(configs), "training_minutes": sum(map(_training_seconds, configs)) / 60}
    for note in results["notes"]:
        log.warning("%s", note)
    write_json(folder / "results.json", results, indent=None)
    write_tables(results, folder)
    figures = draw_study(results, folder)
    tables = [f"### {markdown_text(name)}\n\n{study_markdown(results, name)}" for name in results["benchmarks"]]
    pictures = [f"![{markdown_text(text)}]({quote(path.name)})\n" for path, text in figures]
    blocks = {"cost": _cost(results["setting"]), "tables": "\n".join([*tables, *pictures])}
    readme = folder / "README.md"
    hashes = dict.fromkeys(blocks, results["configuration_hash"])
    write_text_atomic(readme, fill_generated(readme.read_text(encoding="utf-8"), blocks, hashes))
    _mirror(config, results, [path for path, _ in figures])
    log.info("written: %s", folder)
    return folder


def print_tables(config: StudyCommandConfig) -> dict[str, Any]:
    """Print a table of the runs for every benchmark; write tables and numbers into `output`; returns results.json.

    Raises:
        DataError: a run was not evaluated, or runs cannot be compared.
    """
    import yaml

    from geoclip.runs.run_dir import write_json
    from geoclip.studies.results import study_results
    from geoclip.studies.tables import study_rich, write_tables

    results = study_results(
        run_folders(config.runs),
        by=config.by,
        baseline=config.baseline,
        benchmarks=config.benchmarks,
        where={name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in config.where)},
        allow=config.allow,
        with_references=config.references,
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


def run_folders(runs: Any) -> list[Path]:
    """The run folders that match a pattern, or a list of folders and patterns."""
    patterns = [runs] if isinstance(runs, str) else runs
    found = {Path(path) for pattern in patterns for path in glob.glob(str(pattern))}
    return sorted(path for path in found if (path / "config.yaml").is_file())


def write_lists(experiments: Path) -> None:
    """Write the list of all studies into the folder's README.

    A generated block with the name of a study, in the README beside the folder, becomes the summary of that study.
    """
    from geoclip.studies.readme import fill_generated, generated_blocks, study_list
    from geoclip.studies.tables import study_summary
    from geoclip.system.files import write_text_atomic

    readme = experiments / "README.md"
    if readme.is_file():
        text = fill_generated(readme.read_text(encoding="utf-8"), {"studies": study_list(experiments)})
        write_text_atomic(readme, text)
        log.info("written: %s", readme)
    front = experiments.resolve().parent / "README.md"
    text = front.read_text(encoding="utf-8") if front.is_file() else ""
    named = {name: list(experiments.glob(f"[0-9][0-9]_{name}/results.json")) for name in generated_blocks(text)}
    found = {name: json.loads(paths[0].read_text(encoding="utf-8")) for name, paths in named.items() if paths}
    if found:
        tables = {name: study_summary(results) for name, results in found.items()}
        hashes = {name: results.get("configuration_hash", "") for name, results in found.items()}
        write_text_atomic(front, fill_generated(text, tables, hashes))


def _mirror(config: StudyCommandConfig, results: dict[str, Any], figures: Sequence[Path]) -> None:
    """Send all numbers and figures to wandb, in the group of the study's runs."""
    from geoclip.runs.metrics import log_study
    from geoclip.studies.tables import study_rows

    if config.logger.mode is LoggerMode.disabled:
        return
    log_study(
        Path(config.runs_dir) / f"study-{config.name}",
        study_rows(results),
        figures,
        mode=config.logger.mode.value,
        project=config.logger.project,
        entity=config.logger.entity,
        name=config.name,
        config={key: results[key] for key in ("by", "baseline", "setting")},
        patience_s=config.logger.patience_s,
    )


def _training_seconds(run: Path) -> float:
    from geoclip.plotting.report import training_seconds
    from geoclip.runs.metrics import read_rows

    return training_seconds([row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"])


def _cost(setting: dict[str, Any]) -> str:
    machine, versions = setting["machine"], setting["versions"]
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {gpu}; torch {versions['torch']}, Python "
        f"{versions['python']}. {setting['runs']} runs of {setting['samples']:,} samples at revision "
        f"`{setting['revision']}`, evaluated at `{setting['evaluation_revision']}`; "
        f"{setting['training_minutes']:.0f} min of training in all, on a machine shared with other work.\n"
    )


def _missing_evaluations(configs: Mapping[Path, Mapping[str, Any]], device: str) -> list[EvaluateConfig]:
    """The missing evaluations of all runs of a study, given their configurations.

    Raises:
        ConfigError: an evaluation is not possible; every problem is listed.
    """
    from geoclip.evaluate import evaluation_name
    from geoclip.runs.run_dir import located

    wanted, problems = [], []
    for run in configs:
        config = located(configs[run], run)
        study = config["study"]
        for name in study["benchmarks"]:
            benchmark = option("benchmark", name, BenchmarkConfig)
            if benchmark is None:
                known = ", ".join(options("benchmark"))
                problems.append(f"study.benchmarks={name}: must be one of {known} (conf/benchmark/)")
                continue
            if benchmark.kind is BenchmarkKind.shards:  # a split of the run's training data
                benchmark = replace(benchmark, root=config["data"]["root"])
            galleries = [
                GalleryConfig(name=Path(path).stem, kind=GalleryKind.file, path=path) for path in study["galleries"]
            ] or [GalleryConfig(name="own", kind=GalleryKind.own)]
            for gallery, tta in product(galleries, study["tta"]):
                evaluation = EvaluateConfig(
                    checkpoint=str(run),
                    runs_dir=str(run.parent),
                    device=device,
                    keep_gallery=False,  # embeddings of hundreds of runs, each used twice
                    tta=Tta(tta),
                    gallery=gallery,
                    benchmark=benchmark,
                    image_features=_features(config, benchmark),
                )
                file = f"{evaluation_name(evaluation, is_own_gallery=gallery.kind is GalleryKind.own)}.json"
                if not (run / "eval" / file).is_file():
                    wanted.append(evaluation)
    problems += [problem for evaluation in wanted for problem in evaluate_problems(evaluation)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "these runs cannot be evaluated")
    return wanted


def _features(config: Mapping[str, Any], benchmark: BenchmarkConfig) -> str:
    """The folder of a split's features, if the run was trained on features and that split has some; else empty."""
    folder = Path(config["encoder"]["features"] or ".") / (benchmark.split or benchmark.name)
    return str(folder) if config["encoder"]["features"] and (folder / "index.json").is_file() else ""


def _evaluate_all(wanted: Sequence[EvaluateConfig], jobs: int) -> None:
    """Evaluate, `jobs` at a time, without printing tables."""
    from tqdm import tqdm

    from geoclip.data.workers import in_processes

    if not wanted:
        return
    done = in_processes(partial(_quietly, jobs=jobs), wanted, jobs, timeout_s=EVALUATION_S)
    for _ in tqdm(done, "evaluations", len(wanted), unit="evaluation"):
        pass


def _quietly(config: EvaluateConfig, jobs: int) -> None:
    import torch

    from geoclip.data.workers import cores
    from geoclip.evaluate import evaluate

    if jobs > 1:
        torch.set_num_threads(max(1, cores() // jobs))
    logger = logging.getLogger("geoclip")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            evaluate(config)
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    run_entry_point("study", StudyCommandConfig, main)
