"""What an evaluation says beyond distances, in the console, on the page and as figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from geoclip.errors import DataError
from geoclip.evaluation.benchmark import evaluate_benchmark, result_row, write_result
from geoclip.evaluation.details import detail
from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.images import Queries
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.plotting.curves import COLORS
from geoclip.plotting.details import _reliability, details_table, draw_details
from geoclip.plotting.report import write_report
from geoclip.plotting.tables import accuracy_table
from geoclip.plotting.world import new_figure


def evaluated(folder: Path, **changes: Any) -> dict[str, Any]:
    """The result of a model whose embeddings are random, on places all over the sphere."""
    generator = torch.Generator().manual_seed(0)
    truth, places = (uniform_on_sphere(count, generator).double() for count in (300, 400))
    gallery = Gallery(name="sphere", gps_deg_G2=places)
    embedded = F.normalize(torch.randn((700, 16), generator=generator), dim=1)
    queries = Queries(image_ND=embedded[:300], gps_deg_N2=truth, keys=[str(number) for number in range(300)])
    result, predictions = evaluate_benchmark("test", queries, gallery, embedded[300:], scale=20.0, **changes)
    details = detail(predictions, gallery, train_deg_T2=truth[::2].numpy(), **changes)
    row = result_row(result.benchmark, result, details)
    write_result(folder / "eval" / result.benchmark, row, predictions, details)
    return row


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def result(run: Path) -> dict[str, Any]:
    return evaluated(run)


def test_the_table_holds_what_the_json_holds(result: dict[str, Any]) -> None:
    table = details_table(result)
    assert table is not None
    continents, training, ranks = table.sections
    asia = next(row for row in continents.rows if row.label == "Asia")
    assert asia.images == str(result["by_continent"]["Asia"]["n"])
    shares = result["by_continent"]["Asia"]["accuracy_percent"]
    assert [(share.km, share.value) for share in asia.shares] == [(km, shares[km]["value"]) for km in shares]
    assert training.rows[0].label == "less than 1 km"
    assert sum(int(row.images) for row in training.rows) == 300
    assert [row.label for row in ranks.rows] == ["5 guesses", "10 guesses"]
    facts = dict(table.facts)
    assert f"of {result['country']['n']} images not at sea" in facts["same country"]
    assert "chance 5.99" in facts["the place nearest to the truth"]
    assert "points; too" in facts["confidence within 200 km"]


def test_the_console_table_fits_80_columns_whole(result: dict[str, Any]) -> None:
    texts = []
    for width in (80, 200):
        console = Console(width=width, file=io.StringIO(), color_system=None)
        table = details_table(result)
        assert table is not None
        console.print(table.rich())
        assert isinstance(console.file, io.StringIO)
        texts.append(console.file.getvalue())
    assert [line.rstrip() for line in texts[0].splitlines()] == [line.rstrip() for line in texts[1].splitlines()]
    assert "North America" in texts[0] and "< 2500" in texts[0]


def test_the_protocol_stands_in_the_result_and_in_its_tables(tmp_path: Path) -> None:
    released = evaluated(tmp_path, protocol="released")
    assert released["protocol"] == "released"
    table, details = accuracy_table([released]), details_table(released)
    assert details is not None and details.sign == "≤"
    assert "≤ 25 km" in table.markdown() and "≤ 25 km" in table.html() and "< 25 km" not in table.markdown()
    assert table.rows[0].source == "gallery sphere, 400 places, released"
    sphere = accuracy_table([{**released, "protocol": "sphere"}])
    assert "< 25 km" in sphere.markdown() and sphere.rows[0].source.endswith("400 places, sphere")
    both = accuracy_table([released, {**released, "protocol": "sphere"}])
    assert "</≤ 25 km" in both.markdown()


def test_the_report_shows_the_details_and_escapes_names(run: Path, result: dict[str, Any]) -> None:
    page = write_report(run, background=np.zeros((90, 180, 3), dtype=np.uint8)).read_text()
    assert "nearest training place" in page and "North America" in page
    assert page.count('<table class="details">') == 1
    with Image.open(run / "figures" / "details.png") as figure:
        assert figure.width == 1600
    table = details_table({**result, "benchmark": "<script>"})
    assert table is not None and "<script>" not in table.html()


def test_nothing_is_written_over_the_reliability_curve(tmp_path: Path, result: dict[str, Any]) -> None:
    axes = new_figure(5, 5).subplots()
    _reliability(axes, result["calibration"])
    assert not axes.texts and axes.get_legend() is None
    colors = [line.get_color() for line in axes.lines[1:]]
    assert colors == list(COLORS[: len(colors)]), "as in the legend of the panels beside it"


def test_an_older_evaluation_has_no_details(tmp_path: Path) -> None:
    older = {"benchmark": "test", "n": 3}
    assert details_table(older) is None
    with pytest.raises(DataError, match="'test' holds no details; evaluate again"):
        draw_details(older, tmp_path / "details.png")


def test_without_training_places_the_figure_has_no_such_panel(tmp_path: Path, result: dict[str, Any]) -> None:
    unknown = {key: value for key, value in result.items() if not key.startswith(("by_training", "training"))}
    table = details_table(unknown)
    assert table is not None and [section.title for section in table.sections] == ["truth in", "the best of"]
    for number, one in enumerate((result, unknown)):
        draw_details(one, tmp_path / f"{number}.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
