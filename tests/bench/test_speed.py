"""The benchmark's own rules: answers before times, ratios of turns, and a guard that tells a fall from noise."""

from __future__ import annotations

import importlib
import time

import pytest
import torch

from bench.harness import Row, as_json, bandwidth, compare, largest_difference, matrix_rate, products, with_peak_mb
from bench.speed import ROWS, fallen, ratios, table


def slept(milliseconds: float) -> float:
    time.sleep(milliseconds / 1000)
    return milliseconds


def row(name: str, ratio: float, low: float, high: float) -> Row:
    return Row(name=name, ours_s=1.0, released_s=ratio, ratio=ratio, ratio_low=low, ratio_high=high)


def test_the_ratio_is_that_of_the_times_and_a_part_stands_for_the_whole() -> None:
    found = compare(
        "sleep",
        ours=lambda: slept(10),
        released=lambda: slept(20),
        agree=lambda ours, released: f"{ours} and {released}",
        turns=3,
        released_part=0.1,
    )
    assert found.released_s and found.released_s >= 0.2 and found.ours_s >= 0.01
    assert found.ratio and found.ratio_low and found.ratio_high
    assert found.ratio_low <= found.ratio <= found.ratio_high and found.ratio > 1
    assert found.agreement == "10 and 20"


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


def test_a_limit_is_the_machines() -> None:
    assert 1e9 < matrix_rate() < 1e14 and 1e8 < bandwidth() < 1e13
    assert products(matrix_rate()).seconds == pytest.approx(1)


def test_only_a_fall_beyond_the_noise_is_one() -> None:
    kept = ratios([row("a", 10.0, 9.0, 11.0), row("b", 10.0, 9.0, 11.0)])
    assert not fallen([row("a", 8.0, 7.0, 9.0), row("new", 0.1, 0.1, 0.1)], kept)
    (sentence,) = fallen([row("a", 3.0, 2.0, 4.0), row("b", 20.0, 19.0, 21.0)], kept)
    assert sentence.startswith("a: 3.00 times") and "kept is 10.00" in sentence


def test_every_file_of_rows_measures_and_the_table_says_each_figure() -> None:
    assert {"location_encoder", "evaluation", "stream", "start_up"} <= set(ROWS)
    for name in ROWS:
        assert callable(importlib.import_module(f"bench.rows.{name}").measure)
    one = Row(name="r", ours_s=0.02, released_s=1.0, ratio=50.0, ratio_low=40.0, ratio_high=60.0, target=30.0,
              limit_s=0.01, limit_of="bandwidth", ours_peak_mb=3.0, released_peak_mb=1234.0)  # fmt: skip
    text = table([one], "0123456789abcdef")
    assert "| r | 1 s | 20 ms | **50** (40–60) | 30 | 10 ms, bandwidth | 50% | 1,234 MB / 3 MB |" in text
    assert "revision `0123456789ab`" in text and Row(**as_json(one)) == one
