"""The tables of a study: Markdown, LaTeX, CSV and the console, all from results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from geoclip.plotting.tables import Cell, Table, csv_text, tta_note
from geoclip.system.console import percent_text
from geoclip.system.files import write_text_atomic

LABELS = {"median_km": "median km", "geoscore": "GeoScore"}
LOWER_IS_BETTER = {"median_km"}
AS_SHARES = {"data.fraction"}  # what is asked there is what remains of the baseline


def study_tables(results: Mapping[str, Any], benchmark: str) -> list[Table]:
    """What every variant reaches, with the gallery's ceiling and what others published; then the gains, if any."""
    found = results["benchmarks"][benchmark]
    variants = found["variants"]
    metrics = list(variants[0]["metrics"])
    swept = ", ".join(key.removeprefix("eval.") for key in results["by"])
    heads = [*(LABELS.get(metric, f"< {metric} km, %") for metric in metrics)]
    winners = {metric: _winner(variants, metric) for metric in metrics}
    rows = [
        [
            Cell(text=variant["label"]),
            Cell(text=str(len(variant["seeds"]))),
            *(
                Cell(text=_value(variant["metrics"][metric], metric), bold=winners[metric] is variant)
                for metric in metrics
            ),
        ]
        for variant in variants
    ]
    ceilings = [variant["ceiling_percent"] for variant in variants]
    shared = all(ceiling == ceilings[0] for ceiling in ceilings)
    for variant in variants[:1] if shared else variants:
        name = "ceiling of the gallery" if shared else f"ceiling of {variant['label']}"
        rows.append(_italic(name, metrics, variant["ceiling_percent"]))
    rows += [
        _italic(f"{line['model']} ({line['trust']})", metrics, line["percent"])
        for line in results.get("references", {}).get(benchmark, ())
    ]
    tables = [Table([swept or "study", "seeds", *heads], rows)]
    if any(variant["gain"] for variant in variants):
        gained = [
            [
                Cell(text=variant["label"]),
                Cell(text=str(len(_pairs(variant, variants[0])))),
                *(
                    Cell(text=_gain(variant["gain"][metric], metric), bold=variant["gain"][metric]["excludes_zero"])
                    for metric in metrics
                ),
            ]
            for variant in variants
            if variant["gain"]
        ]
        tables.append(Table([f"gain over {variants[0]['label']}", "pairs", *heads], gained))
        if AS_SHARES & set(results["by"]):
            shares = [
                [
                    Cell(text=variant["label"]),
                    Cell(text=str(len(_pairs(variant, variants[0])))),
                    *(Cell(text=_share(variant["gain"][metric]["share"])) for metric in metrics),
                ]
                for variant in variants
                if variant["gain"]
            ]
            of_base = f"share of {variants[0]['label']}'s, %"
            named = [LABELS.get(metric, f"< {metric} km") for metric in metrics]
            tables.append(Table([of_base, "pairs", *named], shares))
    return tables


def _winner(variants: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """The best, if its difference to the baseline is sure; the baseline, if it is surely better than all."""
    if not any(variant["gain"] for variant in variants):
        return None
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = max(variants, key=lambda variant: sign * variant["metrics"][metric]["mean"])
    others = [variant["gain"] for variant in variants if variant["gain"]]
    if best["gain"] is None:
        return best if all(gain[metric]["excludes_zero"] for gain in others) else None
    return best if best["gain"][metric]["excludes_zero"] else None


def _pairs(variant: Mapping[str, Any], base: Mapping[str, Any]) -> set[int]:
    return set(variant["seeds"]) & set(base["seeds"])


def _digits(metric: str) -> int:
    return 0 if metric == "geoscore" else 1


def _value(measured: Mapping[str, Any], metric: str) -> str:
    digits = _digits(metric)
    mean = measured["mean"]
    text = f"{mean:,.{digits}f}" if metric in LABELS else percent_text(mean, digits)
    return text if measured["sd"] is None else f"{text} ± {measured['sd']:,.{digits}f}"


def _gain(gain: Mapping[str, Any], metric: str) -> str:
    digits = _digits(metric)
    value, low, high = (f"{gain[key]:+,.{digits}f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _share(share: Sequence[float] | None) -> str:
    return "" if share is None else f"{share[0]:.1f} ({share[1]:.1f} to {share[2]:.1f})"


def _italic(name: str, metrics: Sequence[str], percent: Mapping[str, float]) -> list[Cell]:
    shares = (percent_text(percent[metric]) if metric in percent else "" for metric in metrics)
    return [Cell(text=name, italic=True), Cell(text=""), *(Cell(text=share, italic=True) for share in shares)]


def legend(results: Mapping[str, Any], benchmark: str) -> str:
    """What the numbers are, in one line."""
    found = results["benchmarks"][benchmark]
    seeds = sorted({seed for variant in found["variants"] for seed in variant["seeds"]})
    views = "" if "eval.tta" in results["by"] else "".join(map(tta_note, found.get("tta", ())))
    said = f"{found['n']:,} images{views}, seeds {', '.join(map(str, seeds))}"
    several = len(seeds) > 1
    said += "; ± is the standard deviation over seeds" if several else "; one seed, so no spread"
    if any(variant["gain"] for variant in found["variants"]):
        chance = "images and seeds" if several else "images alone"
        said += (
            f"; in brackets the 95 % interval of the difference, by paired bootstrap over {chance}; bold: the interval "
            "excludes zero (above: the best, where it does)"
        )
    return said + "."


def study_markdown(results: Mapping[str, Any], benchmark: str) -> str:
    """GitHub's tables and their legend."""
    tables = (table.markdown() for table in study_tables(results, benchmark))
    return "\n".join([*tables, legend(results, benchmark) + "\n"])


def study_summary(results: Mapping[str, Any]) -> str:
    """GitHub's table of the first variant, the baseline if there is one: a row per benchmark and its ceiling."""
    found = results["benchmarks"]
    metrics = list(next(iter(found.values()))["variants"][0]["metrics"])
    heads = ["benchmark", "images", *(LABELS.get(metric, f"< {metric} km, %") for metric in metrics)]
    rows = []
    for name, benchmark in found.items():
        first = benchmark["variants"][0]
        values = (Cell(text=_value(first["metrics"][metric], metric)) for metric in metrics)
        rows.append([Cell(text=name), Cell(text=f"{benchmark['n']:,}"), *values])
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
    """Every number with all its digits: after the head a row per benchmark, variant and metric."""
    head = ["benchmark", "variant", "metric", "mean", "sd", "gain", "low", "high", "excludes_zero", "seeds"]
    rows: list[list[Any]] = [head]
    for benchmark, found in results["benchmarks"].items():
        for variant in found["variants"]:
            for metric, measured in variant["metrics"].items():
                gain = (variant["gain"] or {}).get(metric, {})
                gained = [gain.get(key) for key in ("value", "low", "high", "excludes_zero")]
                seeds = " ".join(map(str, variant["seeds"]))
                said = [benchmark, variant["label"], metric, measured["mean"], measured["sd"]]
                rows.append([*said, *gained, seeds])
    return rows


def study_csv(results: Mapping[str, Any]) -> str:
    """`study_rows` as text; what there is not is empty."""
    return csv_text(study_rows(results))


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """BENCHMARK.md and .tex of every benchmark, and results.csv."""
    for benchmark in results["benchmarks"]:
        write_text_atomic(folder / f"{benchmark}.md", study_markdown(results, benchmark))
        write_text_atomic(folder / f"{benchmark}.tex", study_latex(results, benchmark))
    write_text_atomic(folder / "results.csv", study_csv(results))
