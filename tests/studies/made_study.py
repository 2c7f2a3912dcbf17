"""The results.json of a study with known numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DISTANCES_KM = ("1", "25", "200", "750", "2500")
CURVE_KM = [float(km) for km in np.geomspace(0.1, 20_000, 60)]
CEILING = {"1": 20.0, "25": 72.0, "200": 97.0, "750": 100.0, "2500": 100.0}


def made_variant(
    label: str, values: Mapping[str, Any], base: float, gain: float | None, *, ceiling: Mapping[str, float] = CEILING
) -> dict[str, Any]:
    """A variant whose share within 200 km is `base`; its gain, if any, is significant from one point on."""
    means = {"1": base / 20, "25": base / 2, "200": base, "750": base + 5, "2500": base + 10}
    means |= {"median_km": 1000 / base, "geoscore": 40 * base}
    middle = np.array([100 / (1 + (200 / km) ** 0.8) * base / 50 for km in CURVE_KM]).clip(0, 100)
    return {
        "label": label,
        "values": dict(values),
        "seeds": [0, 1, 2],
        "metrics": {
            metric: {"mean": mean, "sd": 0.02 * mean, "per_seed": [0.98 * mean, mean, 1.02 * mean]}
            for metric, mean in means.items()
        },
        "gain": None if gain is None else {metric: made_gain(gain) for metric in means},
        "ceiling_percent": dict(ceiling),
        "curve": {
            "km": CURVE_KM,
            "percent": middle.tolist(),
            "low": (0.97 * middle).tolist(),
            "high": (1.03 * middle).clip(0, 100).tolist(),
            "ceiling": [100 / (1 + 10 / km) * ceiling["25"] / 72 for km in CURVE_KM],
        },
        "by_continent": {
            "Africa": {"n": 40} | dict.fromkeys(DISTANCES_KM, base - 10),
            "Europe": {"n": 300} | dict.fromkeys(DISTANCES_KM, base + 10),
            "Oceania": {"n": 3} | dict.fromkeys(DISTANCES_KM, base / 2),
        },
    }


def made_gain(value: float) -> dict[str, Any]:
    """One point to either side, so that it is significant from one point on."""
    return {"value": value, "low": value - 1, "high": value + 1, "excludes_zero": abs(value) > 1}


def made_study(
    key: str, swept: Mapping[str, Any], baseline: str, benchmarks: Sequence[str] = ("test",)
) -> dict[str, Any]:
    """A study of labels and values in this order, each two points better than the one before."""
    order = [baseline, *(label for label in swept if label != baseline)]
    at = {label: number for number, label in enumerate(swept)}

    def variant(label: str, start: float) -> dict[str, Any]:
        gain = None if label == baseline else 2.0 * (at[label] - at[baseline])
        return made_variant(label, {key: swept[label]}, start + 2.0 * at[label], gain)

    found = {
        name: {
            "n": 343, "protocol": "sphere", "gallery": {"name": "bluemarble", "size": 24_000, "sha256": "feedbeef"},
            "ceiling_percent": CEILING, "variants": [variant(label, start) for label in order],
        }
        for name, start in zip(benchmarks, (60.0, 30.0), strict=False)
    }  # fmt: skip
    return {"study": "made", "by": [key], "baseline": baseline, "benchmarks": found, "notes": []}
