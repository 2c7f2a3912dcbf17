"""The table of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class TabulateConfig:
    """Which runs are set side by side, and on what; what is empty is as the runs' study says."""

    runs: Any = "runs/*"  # folders, or patterns of them; on the command line also without runs=
    where: Any = None  # of these, the runs and evaluations that say so: {loss: one_way, eval.tta: single}
    by: list[str] = field(
        default_factory=list
    )  # what the variants differ in: keys, groups, or eval.FIELD of an evaluation
    baseline: str = ""  # the variant that the others are compared with, as the table calls it
    benchmarks: list[str] = field(default_factory=list)
    allow: list[str] = field(
        default_factory=list
    )  # of data, gallery, budget, revision: differences that are said instead of refused
    references: bool = False  # published results of other models below ours, with how far they can be trusted
    output: str = ""  # folder of results.json, .md, .tex and .csv; empty: the console alone
    seed: int = 0  # of the bootstrap
