"""Results of a study: its runs, their metrics, and gains over the baseline with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np

from geoclip.errors import DataError
from geoclip.evaluation.comparison import paired, read_images
from geoclip.evaluation.metrics import (
    THRESHOLDS_KM,
    Floats,
    geoscore,
    percent_within,
    references,
    resampled_measures,
    within,
)
from geoclip.evaluation.significance import BOUNDS_PERCENT, LEVEL, mcnemar
from geoclip.runs.run_dir import (
    config_for_hash,
    differences,
    fingerprint_of,
    is_finished,
    read_json,
    read_summary,
    read_yaml,
)
from geoclip.system.files import file_name

PROTECTED_DATA = ("name", "kind", "train", "val", "fraction", "bluemarble")
SETTING = ("protocol", "tta", "n")  # of an evaluation, beside its gallery
PATHS = ("encoder.repo", "study.galleries")  # their contents are in `files`
METRICS = (*map(str, THRESHOLDS_KM), "median_km", "geoscore")
CURVE_KM = np.geomspace(0.1, 20_000, 60)


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
    """The configuration of a run."""
    return read_yaml(folder / "config.yaml")


def gather(runs: Sequence[Path], benchmark: str) -> tuple[list[Unit], list[Path]]:
    """All evaluations of the finished runs on a benchmark, and the unfinished runs.

    Raises:
        DataError: no runs, none is finished, or a finished one was not evaluated.
    """
    units: list[Unit] = []
    finished = [run for run in runs if is_finished(run)]
    for run in finished:
        results = {path.stem: read_json(path) for path in sorted((run / "eval").glob(f"{benchmark}*.json"))}
        results = {name: result for name, result in results.items() if result.get("benchmark") == benchmark}
        if not results:
            raise DataError(
                f"{run} was not evaluated on {benchmark}: python -m geoclip.evaluate checkpoint={run} "
                f"benchmark={benchmark}"
            )
        config, provenance = read_config(run), read_json(run / "provenance.json")
        summary = read_summary(run)
        units += [
            Unit(run=run, config=config, provenance=provenance, summary=summary, result=result, evaluation=name)
            for name, result in results.items()
        ]
    if not units:
        raise DataError(
            f"none of {len(runs)} runs is finished" if runs else "no runs: name their folders, as in runs/scales-*"
        )
    return units, [run for run in runs if run not in finished]


def study_configuration(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The dotted keys that decide a study's results: `common` to all runs, and `points`, the others, sorted."""
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
        elif f"{prefix}{key}" not in PATHS:
            found[f"{prefix}{key}"] = value
    return found


def value_of(unit: Unit, key: str) -> Any:
    """The value of a field of the evaluation (eval.tta), of a group (its option), or of a dotted key.

    Raises:
        DataError: there is no such key.
    """
    first, _, rest = key.partition(".")
    if first == "eval" and rest in unit.result:
        return unit.result[rest]
    try:
        return chosen(unit.config, unit.provenance.get("choices", {}), key)
    except KeyError:
        raise DataError(f"{key} is not a key, group or eval.FIELD of {unit.run}") from None


def chosen(config: Mapping[str, Any], choices: Mapping[str, str], key: str) -> Any:
    """The option of a group, or the value of a dotted key.

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
    """Tags for wandb: the study's name, and KEY=VALUE of what it sweeps; cut at wandb's limit of 64 characters."""
    study = config["study"]
    swept = [key for key in study["by"] if not key.startswith("eval.")]
    tags = [study["name"], *(f"{key}={label(chosen(config, choices, key))}" for key in swept)]
    return [tag[:64] for tag in tags if tag]


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
    """Compare the settings of all evaluations on a benchmark; returns a note for every difference that is allowed.

    Differences in the keys `by` are those of the variants. `allow` has kinds: data, gallery, budget, revision.

    Raises:
        DataError: another difference; the message names both runs, the keys and the fix.
    """
    notes: list[str] = []
    first, *others = units
    facts = _facts(first, by)
    for unit in others:
        for kind, other in _facts(unit, by).items():
            found = differences(facts[kind], other)
            if not found:
                continue
            text = "; ".join(found[:5])
            if kind in allow:
                notes.append(f"{kind} differs: {text}")
                continue
            fix = (
                "select runs with where=[KEY=VALUE], or add the key to by=[…]"
                if kind == "rest"
                else f"select runs of one kind, or set allow=[{kind}]"
            )
            raise DataError(
                f"{first.run} ({first.evaluation}) and {unit.run} ({unit.evaluation}) differ in more than "
                f"{', '.join(by) or 'their seeds'}: {text}. To fix it, {fix}"
            )
    return list(dict.fromkeys(notes))


def _facts(unit: Unit, by: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What must agree between variants, by kind: data, gallery, budget, revision, and the rest; without `by`."""
    rest: dict[str, Any] = json.loads(json.dumps(config_for_hash(unit.config, {})))
    rest.pop("seed")
    data = {f"data.{key}": rest["data"].pop(key, None) for key in PROTECTED_DATA}
    data |= {f"files.{key}": value for key, value in unit.summary["files"].items() if key != "gallery"}
    gallery = {"eval.gallery_sha256": unit.result["gallery_sha256"]}
    rest |= {f"eval.{key}": unit.result.get(key) for key in SETTING}
    for key in ("max_steps", "max_samples", "epochs"):  # they result in samples_seen
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
        if key in ("data", "encoder", "data.fraction", "encoder.features"):
            data = {name: value for name, value in data.items() if not name.startswith("files.")}
        *path, last = key.split(".")
        node = rest
        for part in path:
            node = node.get(part, {})
        node.pop(last, None)
    return {
        "data": data,
        "gallery": gallery,
        "budget": {"samples_seen": unit.summary["samples_seen"]},
        "revision": {
            "revision of the training": unit.provenance["git_revision"],
            "revision of the evaluation": unit.result["git_revision"],
        },
        "rest": rest,
    }


@dataclass(kw_only=True, slots=True, frozen=True)
class Resampled:
    """The errors of one run, its metrics in the order of METRICS, and their bootstrap values."""

    error_km_N: Floats
    value_M: Floats
    draw_RM: Floats


def resampled(error_km_N: Floats, protocol: str, seed: int = 0) -> Resampled:
    """A run's metrics, shares in percent, and their bootstrap values."""
    values = [*percent_within(error_km_N, protocol).values(), np.median(error_km_N), geoscore(error_km_N).mean()]
    draw_RM = resampled_measures(error_km_N, protocol, seed)
    return Resampled(error_km_N=error_km_N, value_M=np.array(values), draw_RM=draw_RM)


def gains(
    base: Mapping[int, Resampled], variant: Mapping[int, Resampled], protocol: str, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Differences between a variant and the baseline by metric, over the seeds that both have.

    Each has value, low and high (95 % interval), excludes_zero, and share: the variant's value in percent of the
    baseline's, low, high; None if that is 0.

    Images are drawn, each with its errors under both variants and all seeds. The mean over the S seeds of every draw is
    then shifted by t · s / √S, where s is the standard deviation of the differences over seeds, and t is drawn from
    Student's distribution: the interval covers the variation of images and of seeds. With one seed it covers only
    images; a share must then pass McNemar's exact test too, because resampling few differing images is overconfident.

    Runs are by seed of training, all on the same images in the same order, resampled with the same seed.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13; Student, "The Probable
    Error of a Mean", Biometrika 6, 1908.
    """
    seeds = sorted(base.keys() & variant.keys())
    if not seeds:
        return {}
    before_SM, after_SM = (np.array([runs[s].value_M for s in seeds]) for runs in (base, variant))
    before_RM, after_RM = (np.mean([runs[s].draw_RM for s in seeds], axis=0) for runs in (base, variant))
    gain_SM = after_SM - before_SM
    gain_M = gain_SM.mean(axis=0)
    draw_RM = np.mean([variant[s].draw_RM - base[s].draw_RM for s in seeds], axis=0)
    low_M, high_M = _bounds(draw_RM, gain_SM, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_M = 100 * after_SM.mean(axis=0) / before_SM.mean(axis=0)
        share_bounds_2M = _bounds(100 * after_RM / before_RM, 100 * after_SM / before_SM, seed)
    shares_M3 = np.stack((share_M, *share_bounds_2M), axis=1)
    found = {}
    for metric, value, low, high, share_3 in zip(METRICS, gain_M, low_M, high_M, shares_M3, strict=True):
        excludes_zero = bool(low > 0 or high < 0)
        if excludes_zero and len(seeds) == 1 and metric.isdigit():
            right = (within(runs[seeds[0]].error_km_N, int(metric), protocol) for runs in (base, variant))
            excludes_zero = mcnemar(*right).p < LEVEL
        share = tuple(map(float, share_3)) if np.isfinite(share_3).all() else None
        numbers = {"value": float(value), "low": float(low), "high": float(high)}
        found[metric] = numbers | {"excludes_zero": excludes_zero, "share": share}
    return found


def _bounds(draw_RM: Floats, per_seed_SM: Floats, seed: int) -> Floats:
    """(2, M) ends of the 95 % intervals: the draws of images, shifted by the spread of several seeds."""
    seeds = len(per_seed_SM)
    if seeds > 1:
        t_R1 = np.random.default_rng(seed + 1).standard_t(seeds - 1, (len(draw_RM), 1))
        draw_RM = draw_RM + t_R1 * per_seed_SM.std(axis=0, ddof=1) / np.sqrt(seeds)
    bounds_2M: Floats = np.percentile(draw_RM, BOUNDS_PERCENT, axis=0)
    return bounds_2M


def study_results(
    runs: Sequence[Path],
    *,
    by: Sequence[str] = (),
    baseline: str = "",
    benchmarks: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    with_references: bool = False,
) -> dict[str, Any]:
    """All numbers of a study's tables and figures: means and spread over seeds, gains and their intervals.

    Args:
        runs: their folders.
        by: keys, groups or eval.FIELD in which the variants differ; empty: those of the study in the runs' config.
        baseline: the label of the variant that the others are compared with; empty: that of the study.
        benchmarks: their names; empty: those of the study.
        where: values by key; only runs and evaluations with these are used.
        allow: of data, gallery, budget, revision: differences that are noted instead of refused.
        with_references: add published results on these benchmarks, with their trust.

    Returns:
        The contents of results.json.

    Raises:
        DataError: nothing to compare, or evaluations that cannot be compared.
    """
    runs = [run for run in runs if (run / "config.yaml").is_file()]
    study = read_config(runs[0]).get("study", {}) if runs else {}
    by, baseline = list(by) or study.get("by", []), baseline or study.get("baseline", "")
    benchmarks = list(benchmarks) or study.get("benchmarks", [])
    if not benchmarks or not (by or study.get("name")):  # without a key: one variant, over its seeds
        raise DataError("these runs belong to no study: set by=[KEY] and benchmarks=[NAME]")
    benchmarks = [file_name(name, f"benchmarks of {runs[0]}") for name in benchmarks]  # of files that are written
    found: dict[str, Any] = {}
    notes: list[str] = []
    for benchmark in benchmarks:
        units, unfinished = gather(runs, benchmark)
        units = [
            unit
            for unit in units
            if all(label(value_of(unit, key)) == label(value) for key, value in (where or {}).items())
        ]
        if not units:
            raise DataError(f"no evaluation on {benchmark} has {dict(where or {})}")
        notes += refuse_mixtures(units, by, allow)
        notes += [f"left out, not finished: {run}" for run in unfinished]
        found[benchmark] = _benchmark(units, by, baseline)
    configuration = study_configuration(list({unit.run: unit.config for unit in units}.values()))
    return {
        "study": study.get("name", ""),
        "by": by,
        "baseline": baseline,
        "setting": _setting(units[0]),
        "configuration": configuration,
        "configuration_hash": fingerprint_of(configuration),
        "notes": list(dict.fromkeys(notes)),
        "benchmarks": found,
        "references": {name: references(name) for name in benchmarks if with_references},
        "runs": [str(run) for run in runs],
    }


def _setting(first: Unit) -> dict[str, Any]:
    return {
        "revision": first.provenance["git_revision"],
        "evaluation_revision": first.result["git_revision"],
        "samples": first.summary["samples_seen"],
        "data": first.config["data"]["name"],
        "files": first.summary["files"],
        "machine": first.provenance["machine"],
        "versions": first.provenance["versions"] | {"python": first.provenance["python"]},
    }


def _benchmark(units: Sequence[Unit], by: Sequence[str], baseline: str) -> dict[str, Any]:
    """All variants on one benchmark, the baseline first, then in the order of the swept values."""
    groups: dict[tuple[str, ...], dict[int, Unit]] = {}
    for unit in units:
        seeds = groups.setdefault(tuple(label(value_of(unit, key)) for key in by), {})
        if unit.seed in seeds:
            raise DataError(f"{seeds[unit.seed].run} and {unit.run} are the same variant with the same seed")
        seeds[unit.seed] = unit
    base = next((labels for labels in groups if ", ".join(labels) == baseline), None)
    if baseline and base is None:
        raise DataError(f"baseline={baseline} is not one of the variants: {' | '.join(map(', '.join, groups))}")
    order = sorted(groups, key=lambda labels: (labels != base, _sort_key(groups[labels], by)))
    first = units[0].result
    found = {
        labels: {s: resampled(km_N, first["protocol"]) for s, km_N in _errors(groups[labels], units[0]).items()}
        for labels in order
    }
    variants = []
    for labels in order:
        gain = None
        if base is not None and labels != base:
            gain = gains(found[base], found[labels], first["protocol"])
        name = _name(labels, base, by, units[0].config.get("study", {}).get("name", ""))
        variants.append({"label": name} | _variant(groups[labels], found[labels], by) | {"gain": gain})
    return {
        "n": first["n"],
        "protocol": first["protocol"],
        "tta": sorted({unit.result.get("tta", "single") for unit in units}),
        "gallery": {"name": first["gallery"], "size": first["gallery_size"], "sha256": first["gallery_sha256"]},
        "ceiling_percent": first["ceiling_percent"],
        "variants": variants,
    }


def _sort_key(seeds: Mapping[int, Unit], by: Sequence[str]) -> list[Any]:
    """Numbers by size, then lists by length and numbers, then all else by name."""
    unit = next(iter(seeds.values()))
    found: list[Any] = []
    for key in by:
        match value_of(unit, key):
            case int() | float() as value if not isinstance(value, bool):
                found.append((0, 0, [float(value)], ""))
            case list() as value:
                found.append((1, len(value), value, ""))
            case value:
                found.append((2, 0, [], str(value)))
    return found


def _name(labels: tuple[str, ...], base: tuple[str, ...] | None, by: Sequence[str], study: str) -> str:
    """The value of the only key, or KEY=VALUE of the keys that differ from the baseline."""
    if len(by) == 1:
        return labels[0]
    if not by:
        return study
    differing = [base is None or labels == base or value != base[number] for number, value in enumerate(labels)]
    pairs = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in zip(by, labels, strict=True)]
    return ", ".join(pair for pair, differs in zip(pairs, differing, strict=True) if differs)


def _errors(seeds: Mapping[int, Unit], reference: Unit) -> dict[int, Floats]:
    """By seed, (N,) errors in km in the order of the reference's images."""
    wanted = read_images(reference.run, reference.evaluation)
    found = {}
    for seed, unit in sorted(seeds.items()):
        images = read_images(unit.run, unit.evaluation)
        if images.keys != wanted.keys:
            _, images = paired(wanted, images, force=images.setting["n"] == wanted.setting["n"])
        found[seed] = images.error_km_N
    return found


def _variant(seeds: Mapping[int, Unit], measured: Mapping[int, Resampled], by: Sequence[str]) -> dict[str, Any]:
    """One variant in results.json, without its label and gain."""
    first = next(iter(seeds.values()))
    protocol = first.result["protocol"]
    metrics = {}
    for number, metric in enumerate(METRICS):
        values = [float(one.value_M[number]) for one in measured.values()]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        metrics[metric] = {"mean": float(np.mean(values)), "sd": sd, "per_seed": values}
    curves = np.array([_curve(one.error_km_N, protocol) for one in measured.values()])
    ceiling_km_N = read_images(first.run, first.evaluation).ceiling_km_N
    return {
        "values": {key: value_of(first, key) for key in by},
        "seeds": sorted(seeds),
        "metrics": metrics,
        "gain": None,
        "ceiling_percent": first.result["ceiling_percent"],
        "curve": {
            "km": CURVE_KM.round(2).tolist(),
            "percent": curves.mean(axis=0).round(2).tolist(),
            "low": curves.min(axis=0).round(2).tolist(),
            "high": curves.max(axis=0).round(2).tolist(),
            "ceiling": _curve(ceiling_km_N, protocol),
        },
        "by_continent": _by_continent([unit.result.get("by_continent", {}) for unit in seeds.values()]),
        "evaluations": [str(seeds[s].run / "eval" / f"{seeds[s].evaluation}.csv") for s in sorted(seeds)],
    }


def _curve(km_N: Floats, protocol: str) -> list[float]:
    return [round(100 * float(within(km_N, km, protocol).mean()), 2) for km in CURVE_KM]


def _by_continent(per_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By continent: the number of images, and the means over seeds of the shares within each distance."""
    return {
        name: {"n": group["n"]}
        | {
            km: float(np.mean([groups[name]["accuracy_percent"][km]["value"] for groups in per_seed]))
            for km in group["accuracy_percent"]
        }
        for name, group in per_seed[0].items()
        if group["n"]
    }
