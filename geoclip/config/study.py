"""A study's evaluations, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geoclip.config.train import LoggerConfig


@dataclass(kw_only=True, slots=True)
class StudyCommandConfig:
    """Which study, and where its runs and its folder are; or which runs to print tables of."""

    name: str = (
        ""  # as in conf/experiment/ and experiments/NN_name; empty: no study, the lists of studies alone
    )
    runs_dir: str = "runs"
    experiments: str = "experiments"
    jobs: int = 1  # evaluations at a time
    device: str = "auto"
    allow: list[str] = field(
        default_factory=list
    )  # of data, gallery, budget, revision: differences that are reported instead of refused
    references: bool = False  # published results of other models below ours, with how far they can be trusted
    logger: LoggerConfig = field(default_factory=LoggerConfig)  # where tables and figures go as well
    runs: Any = None  # run folders, or patterns of them: their tables are printed, no study is written
    where: Any = (
        None  # of these, the runs and evaluations with these values: {loss: one_way, eval.tta: single}
    )
    by: list[str] = field(
        default_factory=list
    )  # keys, groups, or eval.FIELD that the variants differ in; empty: study.by of the runs
    baseline: str = ""  # label of the variant that the others are compared with; empty: study.baseline
    benchmarks: list[str] = field(default_factory=list)  # empty: study.benchmarks
    output: str = ""  # folder of results.json, .md, .tex and .csv; empty: the console alone
