"""A study's evaluations, tables, figures and pages."""

from __future__ import annotations

from dataclasses import dataclass, field

from geoclip.config.train import LoggerConfig


@dataclass(kw_only=True, slots=True)
class StudyPageConfig:
    """Which study, and where its runs and its folder are."""

    name: str = ""  # as in conf/experiment/ and experiments/NN_name; empty: no study, the pages alone
    runs_dir: str = "runs"
    experiments: str = "experiments"
    jobs: int = 1  # evaluations at a time
    device: str = "auto"
    allow: list[str] = field(
        default_factory=list
    )  # of data, gallery, budget, revision: differences that are said instead of refused
    references: bool = False  # published results of other models below ours
    logger: LoggerConfig = field(default_factory=LoggerConfig)  # where tables and figures go as well
