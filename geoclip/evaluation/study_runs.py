"""The runs of a study, gathered from the files that they wrote, and why they may not stand in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from geoclip.errors import DataError
from geoclip.run_dir import config_for_hash, differences, is_finished, read_json, read_summary, read_yaml

PROTECTED_DATA = ("name", "kind", "train", "val", "fraction", "bluemarble")
ALLOWED = ("data", "gallery", "budget", "revision")  # differences that a reader may be told of instead
SETTING = ("protocol", "tta", "n")  # of the evaluation, beside the gallery
PATHS = ("encoder.repo", "study.galleries")  # where files are; their contents are in `files`


@dataclass(kw_only=True, slots=True, frozen=True)
class Unit:
    """One run and one of its evaluations."""

    run: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    summary: dict[str, Any]
    result: dict[str, Any]
    evaluation: str  # the name of its files in eval/

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.config["seed"])


def read_config(folder: Path) -> dict[str, Any]:
    """A run's configuration, as it wrote it."""
    return read_yaml(folder / "config.yaml")


def gather(runs: Sequence[Path], benchmark: str) -> tuple[list[Unit], list[Path]]:
    """Every evaluation of the finished runs on a benchmark, and the runs that are not finished.

    Raises:
        DataError: no runs at all, or a finished one that was not evaluated; the message names the command.
    """
    units, unfinished = [], []
    for run in runs:
        if not is_finished(run):
            unfinished.append(run)
            continue
        found = []
        for path in sorted((run / "eval").glob(f"{benchmark}*.json")):
            result = read_json(path)
            if result.get("benchmark") == benchmark:
                found.append((path.stem, result))
        if not found:
            raise DataError(
                f"{run} was not evaluated on {benchmark}: python -m geoclip.evaluate checkpoint={run} "
                f"benchmark={benchmark}"
            )
        provenance = read_json(run / "provenance.json")
        units += [
            Unit(
                run=run,
                config=read_config(run),
                provenance=provenance,
                summary=read_summary(run),
                result=result,
                evaluation=name,
            )
            for name, result in found
        ]
    if not units:
        raise DataError(
            f"none of {len(runs)} runs is finished" if runs else "no runs: name their folders, as in runs/scales-*"
        )
    return units, unfinished


def study_configuration(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a study's runs were configured with, as far as it decides their results.

    Args:
        configs: of every run, as `plain` gives them.

    Returns:
        `common`, by dotted key the values that all runs share, and `points`, those that differ, a dict per run, sorted.
    """
    flat = [_flat(config_for_hash(dict(config), {}) | {"study": config.get("study", {})}) for config in configs]
    shared = {key: value for key, value in flat[0].items() if all(key in one and one[key] == value for one in flat)}
    points = [{key: value for key, value in sorted(one.items()) if key not in shared} for one in flat]
    return {"common": dict(sorted(shared.items())), "points": sorted(points, key=json.dumps)}


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted key, without PATHS."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return {key: value for key, value in found.items() if key not in PATHS}


def value_of(unit: Unit, key: str) -> Any:
    """What a run says of a key: a field of its evaluation (eval.tta), a group's option, or a dotted key.

    Raises:
        DataError: there is no such key.
    """
    first, _, rest = key.partition(".")
    if first == "eval" and rest in unit.result:
        return unit.result[rest]
    try:
        return chosen(unit.config, unit.provenance.get("choices", {}), key)
    except KeyError:
        raise DataError(f"{key} is no key, group or eval.FIELD of {unit.run}") from None


def chosen(config: Mapping[str, Any], choices: Mapping[str, str], key: str) -> Any:
    """What a configuration says of a key: a group's option, or a dotted key.

    Raises:
        KeyError: there is no such key.
    """
    if key in choices:
        return choices[key]
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping):
            raise KeyError(key)
        node = node[part]
    return node.get("name", node) if isinstance(node, Mapping) else node


def variant_tags(config: Mapping[str, Any], choices: Mapping[str, str]) -> list[str]:
    """The study's name and what this run has of what it sweeps, as wandb takes tags: 64 letters at most."""
    study = config["study"]
    swept = [key for key in study["by"] if not key.startswith("eval.")]
    said = [f"{key}={label(chosen(config, choices, key))}" for key in swept]
    return [tag[:64] for tag in (study["name"], *said) if tag]


def label(value: Any) -> str:
    """A value as tables show it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(label, value))
        case Number():
            return f"{value:.10g}"
        case _:
            return str(value)


def refuse_mixtures(units: Sequence[Unit], by: Sequence[str], allow: Sequence[str]) -> list[str]:
    """What differs although it should not, as far as `allow` permits it: to be said beside the table.

    Args:
        units: of one benchmark.
        by: what the variants are meant to differ in.
        allow: of ALLOWED, whose differences are permitted.

    Raises:
        DataError: another difference; the message names both runs, the keys, and what to do.
    """
    said: list[str] = []
    first = units[0]
    for unit in units[1:]:
        for kind, one, other in zip(
            ("data", "gallery", "budget", "revision", "rest"), _facts(first, by), _facts(unit, by), strict=True
        ):
            found = differences(one, other)
            if not found:
                continue
            text = "; ".join(found[:5])
            if kind in allow:
                said.append(f"{kind} differs: {text}")
                continue
            mend = (
                "choose among them with where={key: value}, or name the key in by=[…]"
                if kind == "rest"
                else f"choose among the runs, or allow=[{kind}]"
            )
            raise DataError(
                f"{first.run} ({first.evaluation}) and {unit.run} ({unit.evaluation}) differ in more than "
                f"{', '.join(by) or 'their seeds'}: {text}. To mend it, {mend}"
            )
    return list(dict.fromkeys(said))


def _facts(unit: Unit, by: Sequence[str]) -> list[dict[str, Any]]:
    """What must agree: data, gallery, budget, revision, and all the rest."""
    rest: dict[str, Any] = json.loads(json.dumps(config_for_hash(unit.config, {})))
    rest.pop("seed")
    data = {f"data.{key}": rest["data"].pop(key, None) for key in PROTECTED_DATA}
    data |= {f"files.{key}": value for key, value in unit.summary["files"].items() if key != "gallery"}
    gallery = {"eval.gallery_sha256": unit.result["gallery_sha256"]}
    budget = {"samples_seen": unit.summary["samples_seen"]}
    revision = {
        "revision of the training": unit.provenance["git_revision"],
        "revision of the evaluation": unit.result["git_revision"],
    }
    rest |= {f"eval.{key}": unit.result.get(key) for key in SETTING}
    for key in ("max_steps", "max_samples", "epochs"):  # the budget is what came of them
        rest.get("optim", {}).pop(key, None)
    rest.pop("validate_every_steps", None)
    for key in by:
        if key.startswith("data."):
            data.pop(key, None)
        elif key.startswith("eval.gallery"):
            gallery.clear()
        elif key.startswith("eval."):
            rest.pop(key, None)
        elif "." not in key and key not in rest:  # a group without a node of its own: fidelity, augmentation
            rest = {}
        if key in ("data", "encoder", "data.fraction") or (key == "encoder.features"):
            data = {name: value for name, value in data.items() if not name.startswith("files.")}
        _drop(rest, key)
    return [data, gallery, budget, revision, rest]


def _drop(node: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        node = node.get(part, {})
    node.pop(last, None)
