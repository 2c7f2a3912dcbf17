"""A study's table: means and intervals by hand, mixtures refused, a tie no win."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from geoclip.config import BenchmarkConfig, BenchmarkKind, TabulateConfig
from geoclip.errors import DataError
from geoclip.evaluation.study import compare, read_measured
from geoclip.tabulate import tabulate


def write_run(root: Path, name: str, seed: int, within_25: float, **changes: Any) -> Path:
    folder = root / f"study-{name}-{seed}{''.join(changes)}"
    (folder / "eval").mkdir(parents=True)
    config: dict[str, Any] = {
        "name": "study",
        "seed": seed,
        "data": {"name": "d", "root": str(root), "fraction": 1.0},
        "encoder": {"name": "e", "features": ""},
        "location": {"name": name, "sigmas": [1, 16]},
        "optim": {"max_steps": 10},
    }
    for key, value in changes.items():
        group, field = key.split("__")
        config[group][field] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = {
        "n": 100,
        "gallery_sha256": "g",
        "accuracy_percent": {"25": {"value": within_25, "low": 0, "high": 100}},
        "median_km": 1000 / within_25,
        "geoscore": 40 * within_25,
    }
    (folder / "eval" / "val.json").write_text(json.dumps(result))
    return folder


def test_means_gains_and_their_intervals_are_those_of_a_hand_calculation(tmp_path: Path) -> None:
    shares = {"small": [50.0, 55.0, 54.0], "other": [53.0, 57.5, 57.0], "tied": [49.0, 57.0, 54.0]}
    runs = [
        read_measured(write_run(tmp_path, name, seed, share), "val")
        for name, values in shares.items()
        for seed, share in enumerate(values)
    ]
    base, other, tied = compare(runs, "location", "small")
    assert (base.name, other.name, tied.name) == ("small", "other", "tied") and base.gain is None
    differences = np.subtract(shares["other"], shares["small"])
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert other.gain is not None and tied.gain is not None
    gain = other.gain["25"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((differences.mean(), *expected))
    assert gain.low > 0 > tied.gain["25"].low
    assert base.values["25"].value == pytest.approx(53) and base.seeds == (0, 1, 2)


def test_the_command_writes_the_table_and_marks_only_what_excludes_zero(tmp_path: Path) -> None:
    for seed, (small, other, tied) in enumerate(((50, 53, 49), (55, 57.5, 57), (54, 57, 54))):
        for name, share in (("small", small), ("other", other), ("tied", tied)):
            write_run(tmp_path, name, seed, share)
    write_run(tmp_path, "small", 0, 90.0, optim__max_steps=99)  # another study's, left out by `where`
    config = TabulateConfig(
        runs=f"{tmp_path}/study-*",
        where={"optim.max_steps": "10"},
        baseline="small",
        benchmark=BenchmarkConfig(name="val", kind=BenchmarkKind.shards),
        output=str(tmp_path / "table.md"),
    )
    text = tabulate(config)
    assert (tmp_path / "table.md").read_text() == text
    gains = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()[-2:]}
    assert "**+2.8 ± 0.7**" in gains["other"] and "**" not in gains["tied"]
    told = json.loads((tmp_path / "table.json").read_text())
    assert len(told["runs"]) == 9 and told["variants"][0]["seeds"] == [0, 1, 2]


def test_runs_that_differ_in_more_are_refused_by_key(tmp_path: Path) -> None:
    one = read_measured(write_run(tmp_path, "small", 0, 50.0), "val")
    other = read_measured(write_run(tmp_path, "other", 0, 50.0, data__fraction=0.2), "val")
    with pytest.raises(DataError, match=r"differ in more than location: data\.fraction: 1\.0 -> 0\.2"):
        compare([one, other], "location")
    again = read_measured(write_run(tmp_path, "small", 0, 60.0, data__root="elsewhere"), "val")
    with pytest.raises(DataError, match="the same variant with the same seed"):
        compare([one, again], "location")
    with pytest.raises(DataError, match="baseline=none is none of the variants: small"):
        compare([one], "location", "none")
    with pytest.raises(DataError, match="no run fits"):
        compare([], "location")
    with pytest.raises(DataError, match=r"test\.json is missing.*geoclip\.evaluate checkpoint="):
        read_measured(one.folder, "test")
