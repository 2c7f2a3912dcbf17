"""Results of a study: its runs, gains over the baseline with intervals, expectations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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


METRICS = (*map(str, THRESHOLDS_KM), "median_km", "geoscore")


@dataclass(kw_only=True, slots=True, frozen=True)
class Gain:
    """What a variant has over the baseline in one metric, and its 95 % interval."""

    value: float
    low: float
    high: float
    excludes_zero: bool
    share: tuple[float, float, float] | None = (
        None  # of the baseline's value, in percent, with its interval; None where that is 0
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class Resampled:
    """One run: its errors, its metrics in the order of METRICS, and their bootstrap values."""

    error_km_N: Floats
    value_M: Floats
    draw_RM: Floats


def measures(error_km_N: Floats, protocol: str) -> dict[str, float]:
    """One run's metrics: shares within the distances in percent, median in km, GeoScore."""
    shares = {str(km): share for km, share in percent_within(error_km_N, protocol).items()}
    return shares | {"median_km": float(np.median(error_km_N)), "geoscore": float(geoscore(error_km_N).mean())}


def resampled(error_km_N: Floats, protocol: str, seed: int = 0) -> Resampled:
    """A run's metrics and their bootstrap values."""
    return Resampled(
        error_km_N=error_km_N,
        value_M=np.array(list(measures(error_km_N, protocol).values())),
        draw_RM=resampled_measures(error_km_N, protocol, seed),
    )


def gains(
    base: Mapping[int, Resampled], variant: Mapping[int, Resampled], protocol: str, seed: int = 0
) -> dict[str, Gain]:
    """What a variant has over the baseline, metric by metric, over the seeds that both have.

    Images are drawn, each with its errors under both variants and all seeds. Every draw's mean over the S seeds is
    then moved by t · s / √S, with s the standard deviation of the seeds' own gains and t drawn from Student's
    distribution: the interval covers the variation of images and of seeds. Of one seed it covers the images' alone, and
    a share must pass McNemar's exact test as well, since few differing images make resampling too sure.

    Args:
        base: by seed of training, a run of the baseline.
        variant: the same images, in the same order, resampled with the same seed.
        protocol: whether an error of exactly a distance lies within it.
        seed: of Student's t.

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
    shares = np.stack((share_M, *share_bounds_2M), axis=1)
    found = {}
    for number, metric in enumerate(METRICS):
        low, high = float(low_M[number]), float(high_M[number])
        sure = low > 0 or high < 0
        if sure and len(seeds) == 1 and metric.isdigit():
            right = (within(runs[seeds[0]].error_km_N, int(metric), protocol) for runs in (base, variant))
            sure = mcnemar(*right).p < LEVEL
        value, share_low, share_high = map(float, shares[number])
        found[metric] = Gain(
            value=float(gain_M[number]),
            low=low,
            high=high,
            excludes_zero=sure,
            share=(value, share_low, share_high) if np.isfinite(shares[number]).all() else None,
        )
    return found


def _bounds(draw_RM: Floats, per_seed_SM: Floats, seed: int) -> Floats:
    """(2, M) ends of the 95 % intervals: the draws of images, moved by the spread of several seeds."""
    seeds = len(per_seed_SM)
    if seeds > 1:
        t_R1 = np.random.default_rng(seed + 1).standard_t(seeds - 1, (len(draw_RM), 1))
        draw_RM = draw_RM + t_R1 * per_seed_SM.std(axis=0, ddof=1) / np.sqrt(seeds)
    bounds_2M: Floats = np.percentile(draw_RM, BOUNDS_PERCENT, axis=0)
    return bounds_2M


CURVE_KM = np.geomspace(0.1, 20_000, 60)


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
    """Everything that a study's tables and figures show: mean and spread over seeds, gains and their intervals.

    Args:
        runs: their folders.
        by: keys, groups or eval.FIELD that the variants differ in; empty: what the runs' study says.
        baseline: the label of the variant that the others are compared with; empty: what the study says.
        benchmarks: their names; empty: what the study says.
        where: of the runs and evaluations, those that say so.
        allow: of data, gallery, budget, revision: differences that are said instead of refused.
        with_references: add what others published on these benchmarks, with how far it can be trusted.

    Returns:
        The contents of results.json.

    Raises:
        DataError: nothing to compare, or what may not be compared.
    """
    runs = [run for run in runs if (run / "config.yaml").is_file()]
    study = read_config(runs[0]).get("study", {}) if runs else {}
    by, baseline = list(by) or study.get("by", []), baseline or study.get("baseline", "")
    benchmarks = list(benchmarks) or study.get("benchmarks", [])
    if not benchmarks or not (by or study.get("name")):  # a study of no key: one variant, over its seeds
        raise DataError("these runs are of no study: say by=[KEY] and benchmarks=[NAME]")
    benchmarks = [file_name(name, f"benchmarks of {runs[0]}") for name in benchmarks]  # of files that are written
    found: dict[str, Any] = {}
    notes: list[str] = []
    for benchmark in benchmarks:
        units, unfinished = gather(runs, benchmark)
        units = [unit for unit in units if _fits(unit, where or {})]
        if not units:
            raise DataError(f"no evaluation on {benchmark} says where={dict(where or {})}")
        notes += refuse_mixtures(units, by, allow)
        notes += [f"left out, not finished: {run}" for run in unfinished]
        found[benchmark] = _benchmark(units, by, baseline)
    configuration = study_configuration(list({unit.run: unit.config for unit in units}.values()))
    return {
        "study": study.get("name", ""),
        "by": by,
        "baseline": baseline,
        "setting": _setting(units),
        "configuration": configuration,
        "configuration_hash": fingerprint_of(configuration),
        "notes": list(dict.fromkeys(notes)),
        "benchmarks": found,
        "references": {name: references(name) for name in benchmarks if with_references},
        "runs": [str(run) for run in runs],
    }


def _fits(unit: Unit, where: Mapping[str, Any]) -> bool:
    return all(label(value_of(unit, key)) == label(value) for key, value in where.items())


def _setting(units: Sequence[Unit]) -> dict[str, Any]:
    first = units[0]
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
    """All variants on one benchmark, the baseline first, then in the order of what was swept."""
    groups: dict[tuple[str, ...], dict[int, Unit]] = {}
    for unit in units:
        seeds = groups.setdefault(tuple(label(value_of(unit, key)) for key in by), {})
        if unit.seed in seeds:
            raise DataError(f"{seeds[unit.seed].run} and {unit.run} are the same variant with the same seed")
        seeds[unit.seed] = unit
    base = next((labels for labels in groups if ", ".join(labels) == baseline), None)
    if baseline and base is None:
        raise DataError(f"baseline={baseline} is none of the variants: {' | '.join(map(', '.join, groups))}")
    order = sorted(groups, key=lambda labels: (labels != base, _order(groups[labels], by)))
    first = units[0].result
    found = {
        labels: {s: resampled(km_N, first["protocol"]) for s, km_N in _errors(groups[labels], units[0]).items()}
        for labels in order
    }
    variants = []
    for labels in order:
        gain = None
        if base is not None and labels != base:
            gained = gains(found[base], found[labels], first["protocol"])
            gain = {name: asdict(one) for name, one in gained.items()}
        name = _name(labels, base, by, units[0].config.get("study", {}).get("name", ""))
        variants.append(_variant(name, groups[labels], found[labels], by, gain))
    return {
        "n": first["n"],
        "protocol": first["protocol"],
        "tta": sorted({unit.result.get("tta", "single") for unit in units}),
        "gallery": {"name": first["gallery"], "size": first["gallery_size"], "sha256": first["gallery_sha256"]},
        "ceiling_percent": first["ceiling_percent"],
        "variants": variants,
    }


def _order(seeds: Mapping[int, Unit], by: Sequence[str]) -> list[Any]:
    """Numbers by size, lists by length and then by their numbers, all else by name."""
    unit = next(iter(seeds.values()))
    found: list[Any] = []
    for key in by:
        match value_of(unit, key):
            case bool() | None as value:
                found.append((2, 0, [], str(value)))
            case int() | float() as value:
                found.append((0, 0, [float(value)], ""))
            case list() as value:
                found.append((1, len(value), value, ""))
            case value:
                found.append((2, 0, [], str(value)))
    return found


def _name(labels: tuple[str, ...], base: tuple[str, ...] | None, by: Sequence[str], study: str) -> str:
    if len(by) == 1:
        return labels[0]
    if not by:
        return study
    pairs = [(key.rsplit(".", 1)[-1], said) for key, said in zip(by, labels, strict=True)]
    if base is not None and labels != base:
        pairs = [pair for pair, said, other in zip(pairs, labels, base, strict=True) if said != other]
    return ", ".join(f"{key}={said}" for key, said in pairs)


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


def _variant(
    name: str,
    seeds: Mapping[int, Unit],
    measured: Mapping[int, Resampled],
    by: Sequence[str],
    gain: dict[str, Any] | None,
) -> dict[str, Any]:
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
        "label": name,
        "values": {key: value_of(first, key) for key in by},
        "seeds": sorted(seeds),
        "metrics": metrics,
        "gain": gain,
        "ceiling_percent": first.result["ceiling_percent"],
        "curve": {
            "km": CURVE_KM.round(2).tolist(),
            "percent": curves.mean(axis=0).round(2).tolist(),
            "low": curves.min(axis=0).round(2).tolist(),
            "high": curves.max(axis=0).round(2).tolist(),
            "ceiling": _curve(ceiling_km_N, protocol),
        },
        "by_continent": _by_continent(list(seeds.values())),
        "evaluations": [str(seeds[s].run / "eval" / f"{seeds[s].evaluation}.csv") for s in sorted(seeds)],
    }


def _curve(km_N: Floats, protocol: str) -> list[float]:
    return [round(100 * float(within(km_N, km, protocol).mean()), 2) for km in CURVE_KM]


def _by_continent(units: Sequence[Unit]) -> dict[str, Any]:
    """By continent: images, and the means over seeds of the shares within each distance."""
    found: dict[str, Any] = {}
    for name, group in units[0].result.get("by_continent", {}).items():
        if not group["n"]:
            continue
        shares = {
            km: float(np.mean([u.result["by_continent"][name]["accuracy_percent"][km]["value"] for u in units]))
            for km in group["accuracy_percent"]
        }
        found[name] = {"n": group["n"], **shares}
    return found
