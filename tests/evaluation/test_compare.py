"""The paired bootstrap against a loop over resamples, its coverage and error rate; and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from geoclip.compare import compare
from geoclip.config import BenchmarkConfig, CompareConfig, compare_problems
from geoclip.errors import DataError
from geoclip.evaluation.comparison import Difference, Images, compare_images, paired, read_images
from geoclip.evaluation.metrics import THRESHOLDS_KM, geoscore
from geoclip.evaluation.significance import RESAMPLES
from geoclip.plotting.report import read_results

Floats = NDArray[np.float64]
MEASURES = [*(str(km) for km in THRESHOLDS_KM), "country", "geoscore", "median_km"]

TEST = BenchmarkConfig(name="test")


def images(error_km_N: Floats, right_N: Floats | None = None) -> Images:
    count = len(error_km_N)
    return Images(
        run="run",
        keys=[str(number) for number in range(count)],
        truth_deg_N2=np.zeros((count, 2)),
        error_km_N=error_km_N,
        ceiling_km_N=np.zeros(0),
        country_right_N=right_N,
        setting={"gallery_sha256": "g", "protocol": "sphere", "tta": "single", "n": count},
    )


def two_runs(count: int, seed: int, gain: float = 1.0) -> tuple[Images, Images]:
    """Errors of the same images, alike but for noise; those of the second are `gain` times smaller."""
    rng = np.random.default_rng(seed)
    hard = 10 ** rng.normal(2.3, 1.1, count)
    errors = [hard * 10 ** rng.normal(0, 0.3, count) / factor for factor in (1.0, gain)]
    at_sea = rng.random(count) < 0.05
    rights = [np.where(at_sea, np.nan, 1.0 * (error < 400)) for error in errors]
    one, other = (images(error, right) for error, right in zip(errors, rights, strict=True))
    return one, other


def by_hand(a: Images, b: Images, seed: int) -> dict[str, Floats]:
    """The differences of resamples, one after the other, by numpy's own means and medians."""
    rng, count = np.random.default_rng(seed), len(a.keys)
    assert a.country_right_N is not None and b.country_right_N is not None
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(RESAMPLES):
        rows = rng.integers(0, count, count)
        one, other = a.error_km_N[rows], b.error_km_N[rows]
        for km in THRESHOLDS_KM:
            found[str(km)].append(100 * ((other < km).mean() - (one < km).mean()))
        right = np.nanmean(b.country_right_N[rows]) - np.nanmean(a.country_right_N[rows])
        found["country"].append(100 * float(right))
        found["geoscore"].append(float(geoscore(other).mean() - geoscore(one).mean()))
        found["median_km"].append(float(np.median(other) - np.median(one)))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("count", [200, 201])  # the median of an even number is the mean of two
def test_every_measure_agrees_with_a_loop_over_the_same_resamples(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoclip.evaluation.significance.COUNTS_AT_ONCE", 7 * count)  # 7 resamples at a time
    a, b = two_runs(count, 0, gain=1.2)
    found = compare_images(a, b, seed=5)
    expected = by_hand(a, b, 5)
    assert set(found) == set(MEASURES)
    for name, difference in found.items():
        low, high = np.percentile(expected[name], (2.5, 97.5))
        assert (difference.low, difference.high) == pytest.approx((low, high), abs=1e-9)
        beyond = min((expected[name] <= 1e-12).sum(), (expected[name] >= -1e-12).sum())
        assert difference.p == pytest.approx(min(1, 2 * (1 + beyond) / (RESAMPLES + 1)), abs=1e-12)
        assert difference.value == pytest.approx(difference.b - difference.a)
    assert found["200"].value == pytest.approx(100 * ((b.error_km_N < 200).mean() - (a.error_km_N < 200).mean()))
    assert found["median_km"].a == pytest.approx(np.median(a.error_km_N))
    assert found["country"].n == count - int(np.isnan(a.country_right_N).sum())  # type: ignore[arg-type]


def test_a_run_against_itself_is_exactly_zero() -> None:
    a, _ = two_runs(150, 1)
    for difference in compare_images(a, a).values():
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
        assert not difference.excludes_zero


def test_intervals_contain_a_small_known_difference_at_their_stated_rate() -> None:
    """b improves 6 % of the images and worsens 2 % of the others; half of all errors are small: 2 points."""
    contained, excluded = 0, 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        error_a, luck = np.where(rng.random(600) < 0.5, 100.0, 900.0), rng.random(600)
        error_b = np.where(luck < 0.06, 100.0, np.where(luck > 0.98, 900.0, error_a))
        found = compare_images(images(error_a), images(error_b), seed=trial)["200"]
        contained += found.low <= 2.0 <= found.high
        excluded += found.excludes_zero
    assert contained / 60 >= 0.9
    assert 0.5 < excluded / 60 < 0.95


def test_equal_runs_are_rarely_called_different() -> None:
    wins = dict.fromkeys(MEASURES, 0)
    for trial in range(60):
        a, b = two_runs(300, 1000 + trial)
        for name, difference in compare_images(a, b, seed=trial).items():
            wins[name] += difference.excludes_zero
    assert max(wins.values()) / 60 < 0.12
    assert sum(wins.values()) / (60 * len(MEASURES)) < 0.06


def test_five_images_are_not_significant() -> None:
    a, b = np.full(300, 900.0), np.full(300, 900.0)
    b[:5] = 100.0
    found = compare_images(images(a), images(b))["200"]
    assert found.low > 0 and found.p < 0.05  # of five images, all on one side
    assert (found.only_a, found.only_b, found.p_sign) == (0, 5, 0.0625)
    assert not found.excludes_zero


def write_run(root: Path, name: str, error_km_N: Floats, **changes: Any) -> Path:
    count = len(error_km_N)
    table = pd.DataFrame(
        {
            "key": [f"{number:03d}" for number in range(count)],
            "lat": np.linspace(-50, 50, count),
            "lon": 10.0,
            "distance_km": error_km_N.round(6),
            "country": np.where(np.arange(count) < 5, "", "NA"),
            "predicted_country": np.where(error_km_N < 300, "NA", "ZA"),
        }
    )
    result = {"benchmark": "test", "n": count, "gallery_sha256": "g", "protocol": "sphere"} | changes
    (root / name / "eval").mkdir(parents=True)
    table.to_csv(root / name / "eval" / "test.csv", index=False)
    (root / name / "eval" / "test.json").write_text(json.dumps(result))
    return root / name


def edit(run: Path, **columns: Any) -> None:
    path = run / "eval" / "test.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).assign(**columns).to_csv(path, index=False)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    a, b = two_runs(120, 3, gain=2.0)
    return write_run(tmp_path, "A", a.error_km_N), write_run(tmp_path, "B", b.error_km_N)


def test_the_command_writes_table_json_and_figure(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = runs
    config = CompareConfig(benchmark=TEST, a=str(a), b=str(b))
    assert compare_problems(config) == []
    path = compare(config)
    assert path == b / "eval" / "compare-A-test.json"
    found = json.loads(path.read_text())
    assert (found["a"], found["b"], found["n"], found["left_out"]) == ("A", "B", 120, [0, 0])
    assert set(found["differences"]) == set(MEASURES)
    assert found["differences"]["country"]["n"] == 115  # NA is Namibia, an empty cell is no country
    again = {name: Difference(**one) for name, one in found["differences"].items()}
    assert again == compare_images(*paired(*(read_images(run, "test") for run in runs)))
    printed = capsys.readouterr().out
    score = again["geoscore"]
    assert score.excludes_zero and score.value > 0 and f"{score.value:+,.0f}" in printed
    with Image.open(b / "figures" / "compare-A-test.png") as figure:
        assert figure.width == 1600
    assert [result["benchmark"] for result in read_results(b)] == ["test"]  # the comparison is not listed


def test_rows_in_another_order_are_the_same_images(runs: tuple[Path, Path]) -> None:
    a, b = runs
    expected = compare_images(*paired(read_images(a, "test"), read_images(b, "test")))
    path = b / "eval" / "test.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).sample(frac=1, random_state=0).to_csv(path, index=False)
    assert compare_images(*paired(read_images(a, "test"), read_images(b, "test"))) == expected


def test_different_settings_images_and_locations_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = runs
    read = read_images(a, "test")
    for changes, words in (
        ({"gallery_sha256": "h"}, "gallery_sha256 g and h"),
        ({"protocol": "released"}, "protocol sphere and released"),
        ({"tta": "ten_crop"}, "tta single and ten_crop"),
    ):
        other = read_images(write_run(tmp_path / words[:5] / str(changes), "C", read.error_km_N, **changes), "test")
        with pytest.raises(DataError, match=words):
            paired(read, other)
        assert len(paired(read, other, force=True)[1].keys) == 120
    edit(b, key=[f"{number:03d}" for number in range(3, 123)])
    other = read_images(b, "test")
    with pytest.raises(DataError, match=r"3 only in A \(000, 001, 002\); 3 only in B \(120, 121, 122\).*force=true"):
        paired(read, other)
    with pytest.raises(DataError, match=r"117 images .* in A .* in B, first 003"):
        paired(read, other, force=True)


def test_force_compares_the_common_images(runs: tuple[Path, Path]) -> None:
    a, b = runs
    path = b / "eval" / "test.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).iloc[10:].to_csv(path, index=False)
    found = json.loads(compare(CompareConfig(benchmark=TEST, a=str(a), b=str(b), force=True)).read_text())
    assert (found["n"], found["left_out"]) == (110, [10, 0])


def test_unreadable_files_are_named_with_the_command_that_writes_them(runs: tuple[Path, Path]) -> None:
    a, b = runs
    edit(b, key="same")
    with pytest.raises(DataError, match=r"test\.csv .*same twice"):
        read_images(b, "test")
    (a / "eval" / "test.json").unlink()
    with pytest.raises(DataError, match=r"test\.csv .*python -m geoclip\.evaluate checkpoint="):
        read_images(a, "test")
    (problem,) = compare_problems(CompareConfig(benchmark=TEST, a=str(a), b=str(b)))
    assert problem.startswith(f"a={a}:") and "python -m geoclip.evaluate" in problem
    (problem,) = compare_problems(CompareConfig(benchmark=TEST, a="nowhere", b=str(b)))
    assert problem.startswith("a=nowhere:")
