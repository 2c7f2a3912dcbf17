"""The table of a study, as Markdown and for the console."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geoclip.evaluation.accuracy import Interval
from geoclip.evaluation.study import Variant

LABELS = {"median_km": "median km", "geoscore": "GeoScore"}


def study_markdown(variants: Sequence[Variant], title: str) -> str:
    """A GitHub table: a row per variant, mean and 95 % interval over seeds; below, the gains over the baseline.

    A gain is bold where its interval excludes zero, for better or for worse.
    """
    metrics = list(variants[0].values)
    head = [title, "seeds", *(LABELS.get(metric, f"< {metric} km, %") for metric in metrics)]
    text = _table(head, [_row(one.name, one, one.values, metrics) for one in variants])
    gains = [one for one in variants if one.gain is not None]
    if gains:
        base = next(one.name for one in variants if one.gain is None)
        head = [f"gain over {base}", *head[1:]]
        rows = [_row(one.name, one, one.gain or {}, metrics, signed=True) for one in gains]
        text += "\n" + _table(head, rows)
    return text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(
    name: str, variant: Variant, values: dict[str, Interval], metrics: list[str], *, signed: bool = False
) -> list[str]:
    return [name, str(len(variant.seeds)), *(_cell(values[metric], metric, signed) for metric in metrics)]


def _cell(interval: Interval, metric: str, signed: bool) -> str:
    digits = 0 if metric in LABELS else 1
    sign = "+" if signed else ""
    if math.isnan(interval.low):
        return f"{interval.value:{sign},.{digits}f}"
    half = (interval.high - interval.low) / 2
    text = f"{interval.value:{sign},.{digits}f} ± {half:,.{digits}f}"
    return f"**{text}**" if signed and interval.low * interval.high > 0 else text
