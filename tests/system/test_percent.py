"""A printed percentage is 100 only for all and 0 only for none, in every table, and has an interval even there."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rich.console import Console

from geoclip.evaluation.metrics import summarise
from geoclip.evaluation.significance import share_interval
from geoclip.plotting.comparison import comparison_table
from geoclip.plotting.tables import accuracy_table, ceiling_table
from geoclip.system.console import percent_text, probability_text
from tests.commands import REPOSITORY

PACKAGE = REPOSITORY / "geoclip"


@pytest.mark.parametrize("n", [3, 200, 4536, 4_720_000])
@pytest.mark.parametrize("digits", [0, 1, 2])
def test_one_image_more_or_less_than_all_or_none_is_seen(n: int, digits: int) -> None:
    assert percent_text(100 * n / n, digits) == "100"
    assert float(percent_text(0.0, digits)) == 0
    assert 0 < float(percent_text(100 / n, digits)) < 100
    assert 0 < float(percent_text(100 * (n - 1) / n, digits)) < 100
    assert probability_text(1 - 1 / n) != "100 %" and probability_text(1.0) == "100 %"
    assert probability_text(1 / n) != probability_text(0.0) == "0 %"


def test_ordinary_shares_keep_their_digits() -> None:
    assert [percent_text(value) for value in (0.0, 0.06, 41.56, 99.94, 99.978)] == [
        "0.0", "0.1", "41.6", "99.9", "99.98",
    ]  # fmt: skip
    assert percent_text(41.56, 0) == "42" and percent_text(float("nan")) == "–"
    assert probability_text(0.4156) == "42 %" and probability_text(0.0123) == "1.2 %"


def test_every_table_prints_the_same_share_alike() -> None:
    share, all_of_them = 99.978, {str(km): 100.0 for km in (1, 25, 200, 750)}
    cells = {km: {"value": value, "low": 99.9, "high": 100.0} for km, value in (all_of_them | {"2500": share}).items()}
    result = {
        "benchmark": "test", "n": 4536, "accuracy_percent": cells, "median_km": 1.0, "geoscore": 4000.0,
        "ceiling_percent": all_of_them | {"2500": share},
    }  # fmt: skip
    ceiling = result | {"verbatim_in_gallery": 1}
    difference = {"a": share, "b": 100.0, "value": 0.022, "low": 0.0, "high": 0.1, "p": 1.0, "excludes_zero": False}
    comparison = {
        "differences": {"2500": difference}, "protocol": "sphere", "benchmark": "test", "n": 4536, "a": "a", "b": "b",
        "resamples": 1000,
    }  # fmt: skip
    console = Console(width=200)
    for table in (
        accuracy_table([result]).rich(),
        accuracy_table([result]).markdown(),
        ceiling_table({"test": ceiling}, "gallery"),
        comparison_table(comparison),
    ):
        with console.capture() as printed:
            console.print(table)
        text = printed.get()
        assert "99.98" in text and not re.search(r"\b100\.0", text)


def test_the_interval_of_all_or_none_is_wilsons() -> None:
    for n in (10, 4536):
        z2 = 1.959964**2
        width = 100 * z2 / (n + z2)
        for found in (summarise(np.full(n, 0.5)).percent[1], share_interval(np.ones(n, dtype=np.bool_))):
            assert (found.value, found.high) == (100, 100) and found.low == pytest.approx(100 - width)
        found = summarise(np.full(n, 19_000.0)).percent[2500]
        assert (found.value, found.low) == (0, 0) and found.high == pytest.approx(width)


def test_no_other_module_formats_a_percentage() -> None:
    formats = re.compile(r":,?\.\d%\}|\.\d[fg]\}\s?%")
    modules = list(PACKAGE.rglob("*.py"))
    assert [path.name for path in modules if formats.search(path.read_text())] == []
    assert len(modules) > 50
