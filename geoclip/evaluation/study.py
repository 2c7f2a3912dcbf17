"""A study: runs that differ in one thing and in their seeds, gathered from the JSON that they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from geoclip.errors import DataError
from geoclip.evaluation.accuracy import Interval
from geoclip.run_dir import differences, science


@dataclass(kw_only=True, slots=True, frozen=True)
class Measured:
    """One run on one benchmark."""

    folder: Path
    config: dict[str, Any]
    values: dict[str, float]  # by metric: a distance in km, median_km, geoscore
    setting: dict[str, Any]  # what must be the same for two runs to be compared


@dataclass(kw_only=True, slots=True, frozen=True)
class Variant:
    """What its seeds came to, metric by metric."""

    name: str
    seeds: tuple[int, ...]
    values: dict[str, Interval]
    gain: (
        dict[str, Interval] | None
    )  # over the baseline, seed by seed; None for the baseline itself, or without one


def read_measured(folder: Path, benchmark: str) -> Measured:
    """What a run's configuration and eval/<benchmark>.json say.

    Raises:
        DataError: it was not evaluated; the message names the command that does it.
    """
    path = folder / "eval" / f"{benchmark}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} is missing; write it: python -m geoclip.evaluate checkpoint={folder} benchmark={benchmark}"
        ) from error
    values = {km: cell["value"] for km, cell in result["accuracy_percent"].items()}
    return Measured(
        folder=folder,
        config=read_config(folder),
        values=values | {"median_km": result["median_km"], "geoscore": result["geoscore"]},
        setting={key: result.get(key) for key in ("n", "gallery_sha256", "protocol")},
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A run's configuration, as it wrote it."""
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return config


def chosen(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key.

    Raises:
        DataError: there is no such key.
    """
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise DataError(f"{key} is no key of these runs' configurations")
        node = node[part]
    return node


def compare(runs: Sequence[Measured], by: str, baseline: str = "") -> list[Variant]:
    """Mean over seeds and its 95 % interval for every variant, and its gain over the baseline.

    Intervals are Student's, over seeds: of three they are wide, as they should be. The gain is of runs of the same
    seed, which share first weights, order of the data and noise as far as the variants have them in common.

    Args:
        runs: of the same benchmark.
        by: a group, or a dotted key.
        baseline: a variant's name.

    Returns:
        The variants by name, the baseline first.

    Raises:
        DataError: no runs; runs that differ in anything else, or a variant twice with one seed; an unknown baseline.

    Source: Student, "The Probable Error of a Mean", Biometrika 6, 1908.
    """
    if not runs:
        raise DataError("no run fits; check runs=… and where=…")
    _refuse_mixtures(runs, by)
    by_variant: dict[str, dict[int, Measured]] = {}
    for run in runs:
        seeds = by_variant.setdefault(_name_of(run, by), {})
        seed = run.config["seed"]
        if seed in seeds:
            raise DataError(f"{seeds[seed].folder} and {run.folder} are the same variant with the same seed")
        seeds[seed] = run
    if baseline and baseline not in by_variant:
        raise DataError(f"baseline={baseline} is none of the variants: {', '.join(sorted(by_variant))}")
    names = sorted(by_variant, key=lambda name: (name != baseline, name))
    return [_variant(name, by_variant[name], by_variant.get(baseline), name == baseline) for name in names]


def _variant(
    name: str, seeds: Mapping[int, Measured], base: Mapping[int, Measured] | None, is_base: bool
) -> Variant:
    metrics = next(iter(seeds.values())).values
    gain = None
    if base is not None and not is_base:
        common = sorted(seeds.keys() & base.keys())
        gain = {
            metric: _over_seeds([seeds[seed].values[metric] - base[seed].values[metric] for seed in common])
            for metric in metrics
        }
    values = {metric: _over_seeds([run.values[metric] for run in seeds.values()]) for metric in metrics}
    return Variant(name=name, seeds=tuple(sorted(seeds)), values=values, gain=gain)


def _over_seeds(values: list[float]) -> Interval:
    """The mean and Student's interval; of one value, no interval."""
    if not values:
        return Interval(value=float("nan"), low=float("nan"), high=float("nan"))
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(value=mean, low=float("nan"), high=float("nan"))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(value=mean, low=mean - half, high=mean + half)


def _name_of(run: Measured, by: str) -> str:
    value = chosen(run.config, by)
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else str(value)


def _refuse_mixtures(runs: Sequence[Measured], by: str) -> None:
    """Raise DataError where two runs differ in more than `by` and the seed."""
    first = runs[0]
    for run in runs[1:]:
        found = differences(_common(first, by), _common(run, by))
        if found:
            raise DataError(
                f"{first.folder} and {run.folder} differ in more than {by}: {'; '.join(found[:5])}. "
                "Choose among them with runs=… and where=…"
            )


def _common(run: Measured, by: str) -> dict[str, Any]:
    """What must be the same in all runs of a study."""
    config: dict[str, Any] = json.loads(json.dumps(science(run.config, {})))
    config.pop("seed")
    *path, last = by.split(".")
    node = config
    for part in path:
        node = node.get(part, {})
    node.pop(last, None)
    return config | {"measured with": run.setting}
