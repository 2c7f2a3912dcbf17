"""A study: runs that differ in what was swept and in their seeds, as one table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from geoclip.errors import DataError
from geoclip.evaluation.accuracy import Floats
from geoclip.evaluation.paired_images import paired, read_images
from geoclip.evaluation.protocols import within
from geoclip.evaluation.published import references
from geoclip.evaluation.study_gains import METRICS, Resampled, gains, resampled
from geoclip.evaluation.study_runs import (
    Unit,
    gather,
    label,
    read_config,
    refuse_mixtures,
    study_configuration,
    value_of,
)
from geoclip.files import file_name
from geoclip.run_dir import fingerprint_of

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
        "references": {name: list(map(asdict, references(name))) for name in benchmarks if with_references},
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
