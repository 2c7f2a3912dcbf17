"""Published results of other models, to stand below ours, each with how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoclip.errors import DataError
from geoclip.evaluation.accuracy import THRESHOLDS_KM


@dataclass(kw_only=True, slots=True, frozen=True)
class Reference:
    """One published line."""

    model: str
    percent: dict[str, float]  # by distance in km
    trust: str


def references(benchmark: str) -> list[Reference]:
    """The published lines of a benchmark.

    Raises:
        DataError: there are none.
    """
    path = Path(__file__).with_suffix(".yaml")
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if benchmark not in found:
        raise DataError(f"references=true: nothing is published on {benchmark}, only on {', '.join(sorted(found))}")
    return [
        Reference(
            model=row["model"],
            percent=dict(zip(map(str, THRESHOLDS_KM), row["percent"], strict=True)),
            trust=row["trust"],
        )
        for row in found[benchmark]
    ]
