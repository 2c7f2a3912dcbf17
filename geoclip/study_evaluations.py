"""The evaluations that a study asks for and that its runs have not had: each once, several at a time."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from geoclip.checks import evaluate_problems
from geoclip.config import (
    BenchmarkConfig,
    ConfigError,
    EvaluateConfig,
    GalleryConfig,
    GalleryKind,
    Tta,
    option,
    options,
)
from geoclip.evaluate import evaluate, evaluation_name

log = logging.getLogger("geoclip")


def missing_evaluations(configs: Mapping[Path, Mapping[str, Any]], device: str) -> list[EvaluateConfig]:
    """What has to be evaluated still, over all runs of a study.

    Args:
        configs: by run, its configuration.
        device: to evaluate on.

    Raises:
        ConfigError: some of it cannot be; every problem is listed.
    """
    wanted, problems = [], []
    for run, config in configs.items():
        study = config["study"]
        for name in study["benchmarks"]:
            benchmark = option("benchmark", name, BenchmarkConfig)
            if benchmark is None:
                problems.append(
                    f"study.benchmarks={name} is none of {', '.join(options('benchmark'))} (conf/benchmark/)"
                )
                continue
            galleries = [
                GalleryConfig(name=Path(path).stem, kind=GalleryKind.file, path=path)
                for path in study["galleries"]
            ]
            for gallery in galleries or [GalleryConfig(name="own", kind=GalleryKind.own)]:
                for tta in study["tta"]:
                    asked = EvaluateConfig(
                        checkpoint=str(run),
                        runs_dir=str(run.parent),
                        device=device,
                        tta=Tta(tta),
                        gallery=gallery,
                        benchmark=benchmark,
                        image_features=_features(config, benchmark),
                    )
                    file = f"{evaluation_name(asked, is_own_gallery=not galleries)}.json"
                    if not (run / "eval" / file).is_file():
                        wanted.append(asked)
    problems += [problem for asked in wanted for problem in evaluate_problems(asked)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "these runs cannot be evaluated")
    return wanted


def _features(config: Mapping[str, Any], benchmark: BenchmarkConfig) -> str:
    """The features of a split, where a run was trained on some and the split was among them."""
    folder = Path(config["encoder"]["features"] or ".") / (benchmark.split or benchmark.name)
    return str(folder) if config["encoder"]["features"] and (folder / "index.json").is_file() else ""


def evaluate_all(wanted: Sequence[EvaluateConfig], jobs: int) -> None:
    """Evaluate, `jobs` at a time; their tables are not printed."""
    from tqdm import tqdm

    if not wanted:
        return
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_share_cores, initargs=(jobs,)) as pool:
        for _ in tqdm(pool.map(_quietly, wanted), "evaluations", len(wanted), unit="evaluation"):
            pass


def _share_cores(jobs: int) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def _quietly(config: EvaluateConfig) -> None:
    logging.getLogger("geoclip").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate(config)
