"""The tables of a study, from its results.json: Markdown, LaTeX, CSV and console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from geoclip.plotting.tables import Cell, Table, csv_text, tta_note
from geoclip.system.console import percent_text
from geoclip.system.files import write_text_atomic

LABELS = {"median_km": "median km", "geoscore": "GeoScore"}
AS_SHARES = {"data.fraction"}  # swept keys whose gains are also shown as shares of the baseline's values


def study_tables(results: Mapping[str, Any], benchmark: str) -> list[Table]:
    """Metrics of every variant, with the gallery's ceiling and published results; then the gains, if any."""
    variants = results["benchmarks"][benchmark]["variants"]
    metrics = list(variants[0]["metrics"])
    swept = ", ".join(key.removeprefix("eval.") for key in results["by"])
    heads = [LABELS.get(metric, f"< {metric} km, %") for metric in metrics]
    winners = {metric: _winner(variants, metric) for metric in metrics}
    rows = [
        [
            variant["label"],
            str(len(variant["seeds"])),
            *(Cell(text=_value(measured, metric), bold=winners[metric] is variant)
              for metric, measured in variant["metrics"].items()),
        ]
        for variant in variants
    ]  # fmt: skip
    shared = all(variant["ceiling_percent"] == variants[0]["ceiling_percent"] for variant in variants)
    for variant in variants[:1] if shared else variants:
        name = "ceiling of the gallery" if shared else f"ceiling of {variant['label']}"
        rows.append(_italic(name, metrics, variant["ceiling_percent"]))
    rows += [
        _italic(f"{line['model']} ({line['trust']})", metrics, line["percent"])
        for line in results.get("references", {}).get(benchmark, ())
    ]
    tables = [Table([swept or "study", "seeds", *heads], rows)]
    base, gained = variants[0], [variant for variant in variants if variant["gain"]]
    names = [[variant["label"], str(len(set(variant["seeds"]) & set(base["seeds"])))] for variant in gained]
    if gained:
        cells = [
            [Cell(text=_gain(one["gain"][metric], metric), bold=one["gain"][metric]["excludes_zero"])
             for metric in metrics]
            for one in gained
        ]  # fmt: skip
        rows = [[*name, *row] for name, row in zip(names, cells, strict=True)]
        tables.append(Table([f"gain over {base['label']}", "pairs", *heads], rows))
    if gained and AS_SHARES & set(results["by"]):
        rows = [
            [*name, *(_share(one["gain"][metric]["share"]) for metric in metrics)]
            for name, one in zip(names, gained, strict=True)
        ]
        heads = [LABELS.get(metric, f"< {metric} km") for metric in metrics]
        tables.append(Table([f"share of {base['label']}'s, %", "pairs", *heads], rows))
    return tables


def _winner(variants: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """The best variant, if the interval of its gain excludes zero, and all intervals do so if it is the baseline."""
    if not any(variant["gain"] for variant in variants):
        return None
    sign = -1 if metric == "median_km" else 1
    best = max(variants, key=lambda variant: sign * variant["metrics"][metric]["mean"])
    others = [variant["gain"] for variant in variants if variant["gain"]]
    if best["gain"] is None:
        return best if all(gain[metric]["excludes_zero"] for gain in others) else None
    return best if best["gain"][metric]["excludes_zero"] else None


def _value(measured: Mapping[str, Any], metric: str) -> str:
    digits = 0 if metric == "geoscore" else 1
    mean = measured["mean"]
    text = f"{mean:,.{digits}f}" if metric in LABELS else percent_text(mean, digits)
    return text if measured["sd"] is None else f"{text} ± {measured['sd']:,.{digits}f}"


def _gain(gain: Mapping[str, Any], metric: str) -> str:
    digits = 0 if metric == "geoscore" else 1
    value, low, high = (f"{gain[key]:+,.{digits}f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _share(share: Sequence[float] | None) -> str:
    return "" if share is None else f"{share[0]:.1f} ({share[1]:.1f} to {share[2]:.1f})"


def _italic(name: str, metrics: Sequence[str], percent: Mapping[str, float]) -> list[Any]:
    shares = (percent_text(percent[metric]) if metric in percent else "" for metric in metrics)
    return [Cell(text=name, italic=True), "", *(Cell(text=share, italic=True) for share in shares)]


def legend(results: Mapping[str, Any], benchmark: str) -> str:
    """Images, seeds, and the meaning of the numbers, in one line."""
    found = results["benchmarks"][benchmark]
    seeds = sorted({seed for variant in found["variants"] for seed in variant["seeds"]})
    views = "" if "eval.tta" in results["by"] else "".join(map(tta_note, found.get("tta", ())))
    text = f"{found['n']:,} images{views}, seeds {', '.join(map(str, seeds))}"
    several = len(seeds) > 1
    text += "; ± is the standard deviation over seeds" if several else "; one seed, so no spread"
    if any(variant["gain"] for variant in found["variants"]):
        chance = "images and seeds" if several else "images alone"
        text += (
            f"; in brackets the 95 % interval of the difference, by paired bootstrap over {chance}; bold: the interval "
            "excludes zero (above: the best, where it does)"
        )
    return text + "."


def study_markdown(results: Mapping[str, Any], benchmark: str) -> str:
    """GitHub tables and their legend."""
    tables = (table.markdown() for table in study_tables(results, benchmark))
    return "\n".join([*tables, legend(results, benchmark) + "\n"])


def study_summary(results: Mapping[str, Any]) -> str:
    """A GitHub table of the first variant, the baseline if there is one: a row per benchmark and its ceiling."""
    found = results["benchmarks"]
    metrics = list(next(iter(found.values()))["variants"][0]["metrics"])
    heads = ["benchmark", "images", *(LABELS.get(metric, f"< {metric} km, %") for metric in metrics)]
    rows = []
    for name, benchmark in found.items():
        first = benchmark["variants"][0]
        values = (_value(first["metrics"][metric], metric) for metric in metrics)
        rows.append([name, f"{benchmark['n']:,}", *values])
        rows.append(_italic("ceiling of the gallery", metrics, first["ceiling_percent"]))
    seeds = ", ".join(map(str, next(iter(found.values()))["variants"][0]["seeds"]))
    return f"{Table(heads, rows).markdown()}\nMean ± standard deviation over seeds {seeds}.\n"


def study_latex(results: Mapping[str, Any], benchmark: str) -> str:
    """Tables for a paper that loads booktabs."""
    tables = (table.latex() for table in study_tables(results, benchmark))
    return f"% {legend(results, benchmark)}\n" + "\n".join(tables)


def study_rich(results: Mapping[str, Any], benchmark: str) -> list[RichTable | str]:
    """For the console."""
    tables = (table.rich() for table in study_tables(results, benchmark))
    return [f"\n{benchmark}", *tables, legend(results, benchmark)]


def study_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """All numbers with all digits: after the header, a row per benchmark, variant and metric."""
    head = ["benchmark", "variant", "metric", "mean", "sd", "gain", "low", "high", "excludes_zero", "seeds"]
    rows: list[list[Any]] = [head]
    for benchmark, found in results["benchmarks"].items():
        for variant in found["variants"]:
            for metric, measured in variant["metrics"].items():
                gain = (variant["gain"] or {}).get(metric, {})
                gained = [gain.get(key) for key in ("value", "low", "high", "excludes_zero")]
                seeds = " ".join(map(str, variant["seeds"]))
                rows.append([benchmark, variant["label"], metric, measured["mean"], measured["sd"], *gained, seeds])
    return rows


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """Write BENCHMARK.md and .tex of every benchmark, and results.csv."""
    for benchmark in results["benchmarks"]:
        write_text_atomic(folder / f"{benchmark}.md", study_markdown(results, benchmark))
        write_text_atomic(folder / f"{benchmark}.tex", study_latex(results, benchmark))
    write_text_atomic(folder / "results.csv", csv_text(study_rows(results)))
