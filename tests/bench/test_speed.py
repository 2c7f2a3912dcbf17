"""The rules of the benchmark: equal answers before times, ratios by turns, and regressions distinguished from noise."""

from __future__ import annotations

import importlib

import pytest
import torch

from bench import harness
from bench.harness import Row, as_json, compare, largest_difference, with_peak_mb
from bench.speed import ROWS, fallen, ratios, table


def row(name: str, ratio: float, low: float, high: float) -> Row:
    return Row(name=name, ours_s=1.0, released_s=ratio, ratio=ratio, ratio_low=low, ratio_high=high)


def test_ratios_are_taken_by_turns_and_a_part_is_scaled_to_all_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "seconds_of", lambda work: work())
    ours_s = iter([0.0, 1.0, 2.0, 4.0])  # the first call is for the answer
    found = compare(
        "x", ours=lambda: next(ours_s), released=lambda: 0.8, agree=lambda *both: f"{both}", turns=3, released_part=0.1
    )
    assert found.ours_s == 2 and found.released_s == pytest.approx(8)
    assert (found.ratio_low, found.ratio, found.ratio_high) == pytest.approx((2, 4, 8))
    assert found.agreement == "(0.0, 0.8)"


def test_nothing_is_timed_before_the_answers_agree() -> None:
    calls: list[str] = []

    def ours() -> torch.Tensor:
        calls.append("ours")
        return torch.ones(3)

    with pytest.raises(AssertionError, match="differ by 1"):
        compare("x", ours=ours, released=lambda: torch.zeros(3), agree=largest_difference(1e-5), turns=3)
    assert calls == ["ours"]


def test_peak_memory_is_what_was_added() -> None:
    held, peak_mb = with_peak_mb(lambda: torch.ones(2**24).sum() + torch.ones(2**24).sum())
    assert float(held) == 2**25
    assert peak_mb is None or 60 < peak_mb < 200  # 64 MB at a time; 0 where it was measured around nothing


def test_a_limit_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_best_s", lambda work, calls: work() is None or 0.5)
    assert harness.reading(2**29).seconds == pytest.approx(0.5)
    assert harness.products(harness.matrix_rate()).seconds == pytest.approx(1)


def test_only_a_fall_beyond_the_noise_is_one() -> None:
    kept = ratios([row("a", 10.0, 9.0, 11.0), row("b", 10.0, 9.0, 11.0)])
    assert not fallen([row("a", 8.0, 7.0, 9.0), row("new", 0.1, 0.1, 0.1)], kept)
    (problem,) = fallen([row("a", 3.0, 2.0, 4.0), row("b", 20.0, 19.0, 21.0)], kept)
    assert problem.startswith("a: 3.00") and "10.00" in problem


@pytest.mark.parametrize("name", ROWS)
def test_every_file_of_rows_measures(name: str) -> None:
    assert callable(importlib.import_module(f"bench.rows.{name}").measure)


def test_a_row_is_in_the_table_and_survives_json() -> None:
    one = Row(name="r", ours_s=0.02, released_s=1.0, ratio=50.0, ratio_low=40.0, ratio_high=60.0, target=30.0,
              limit_s=0.01, limit_of="bandwidth", ours_peak_mb=3.0, released_peak_mb=1234.0)  # fmt: skip
    text = table([one], "0123456789abcdef")
    assert "| r | 1 s | 20 ms | **50** (40–60) | 30 | 10 ms, bandwidth | 50% | 1,234 MB / 3 MB |" in text
    assert Row(**as_json(one)) == one
