"""The table of accuracy has the numbers of the JSON in every form."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from geoclip.errors import DataError
from geoclip.plotting.tables import accuracy_table

RESULT: dict[str, Any] = {
    "benchmark": "test_unseen_cells",
    "n": 2000,
    "accuracy_percent": {
        "2500": {"value": 99.97, "low": 99.9, "high": 100.0},
        "1": {"value": 2.125, "low": 1.5, "high": 2.8},
        "25": {"value": 41.2, "low": 39.1, "high": 43.3},
        "200": {"value": 81.0, "low": 79.3, "high": 82.7},
        "750": {"value": 91.9, "low": 90.6, "high": 93.1},
    },
    "median_km": 1234.5,
    "mean_km": 2222.2,
    "geoscore": 4321.4,
    "ceiling_percent": {"1": 24.2, "25": 91.1, "200": 99.6, "750": 100.0, "2500": 100.0},
    "gallery": "bluemarble",
    "gallery_size": 24_000,
    "verbatim_in_gallery": 0,
}


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(accuracy_table([RESULT, RESULT]).rich())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_numbers_are_those_of_the_json_in_the_order_of_distance() -> None:
    row = accuracy_table([RESULT]).rows[0]
    assert [share.km for share in row.shares] == ["1", "25", "200", "750", "2500"]
    for share in row.shares:
        assert (share.value, share.low, share.high) == tuple(RESULT["accuracy_percent"][share.km].values())
        assert share.ceiling == RESULT["ceiling_percent"][share.km]
    assert (row.benchmark, row.n, row.median, row.score) == ("test_unseen_cells", 2000, "1,234", "4,321")


def test_markdown_has_a_row_and_its_ceiling() -> None:
    head, rule, row, ceiling = accuracy_table([RESULT]).markdown().splitlines()
    assert head.split(" | ")[2:7] == ["< 1 km", "< 25 km", "< 200 km", "< 750 km", "< 2500 km"]
    assert head.count("|") == rule.count("|") == row.count("|") == ceiling.count("|")
    assert "| **81.0** (79.3–82.7) |" in row
    assert "| 1,234 | 4,321 |" in row
    assert "| 24.2 | 91.1 | 99.6 | 100 | 100 |" in ceiling


def test_the_console_table_fits_80_columns() -> None:
    text = shown(80)
    assert text == shown(200), "nothing is wrapped or cut at 80 columns"
    for number in ("2.1", "41.2", "39.1–43.3", "99.9–100", "1,234", "4,321", "24.2", "2,000"):
        assert number in text


def test_html_escapes_names() -> None:
    html = accuracy_table([{**RESULT, "benchmark": "<script>alert(1)</script>"}]).html()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_a_missing_key_is_named() -> None:
    with pytest.raises(DataError):
        accuracy_table([])
    lacking = {key: value for key, value in RESULT.items() if key != "geoscore"}
    with pytest.raises(DataError, match=r"'test_unseen_cells'.*'geoscore'"):
        accuracy_table([lacking])
    other = copy.deepcopy(RESULT)
    del other["accuracy_percent"]["1"]
    with pytest.raises(DataError, match="'2500'"):
        accuracy_table([RESULT, other])
