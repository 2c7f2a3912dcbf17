"""Details of an evaluation on the console, in the report and as a figure."""

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
from geoclip.evaluation.retrieval import Queries
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.plotting.curves import COLORS
from geoclip.plotting.details import _reliability, details_table, draw_details
from geoclip.plotting.report import write_report
from geoclip.plotting.tables import accuracy_table
from geoclip.plotting.world import new_figure


def evaluated(folder: Path, **changes: Any) -> dict[str, Any]:
    """The result of a model with random embeddings, on locations all over the sphere."""
    generator = torch.Generator().manual_seed(0)
    truth, locations = (uniform_on_sphere(count, generator).double() for count in (300, 400))
    gallery = Gallery(name="sphere", gps_deg_G2=locations)
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


def test_the_table_has_the_numbers_of_the_json(result: dict[str, Any]) -> None:
    table = details_table(result)
    assert table is not None
    continents, training, ranks = table.sections.values()
    asia = next(row for row in continents if row.label == "Asia")
    assert asia.images == str(result["by_continent"]["Asia"]["n"])
    shares = result["by_continent"]["Asia"]["accuracy_percent"]
    assert [(share.km, share.value) for share in asia.shares] == [(km, shares[km]["value"]) for km in shares]
    assert sum(int(row.images) for row in training) == 300
    assert [row.label.split()[0] for row in ranks] == ["5", "10"]
    facts = " ".join(table.facts.values())
    for number in (result["country"]["n"], "5.99", f"{100 * result['calibration']['200']['ece']:.1f}"):
        assert str(number) in facts


def test_the_console_table_fits_80_columns(result: dict[str, Any]) -> None:
    texts = []
    table = details_table(result)
    assert table is not None
    for width in (80, 200):
        file = io.StringIO()
        Console(width=width, file=file, color_system=None).print(table.rich())
        texts.append([line.rstrip() for line in file.getvalue().splitlines()])
    assert texts[0] == texts[1] and "North America" in "\n".join(texts[0])


def test_the_protocol_decides_the_sign_of_every_table(tmp_path: Path) -> None:
    released = evaluated(tmp_path, protocol="released")
    assert released["protocol"] == "released"
    table, details = accuracy_table([released]), details_table(released)
    assert details is not None and details.sign == "≤"
    assert "≤ 25 km" in table.markdown() and "≤ 25 km" in table.html() and "< 25 km" not in table.markdown()
    sphere = accuracy_table([{**released, "protocol": "sphere"}])
    assert "< 25 km" in sphere.markdown()
    assert "released" in table.rows[0].source and "sphere" in sphere.rows[0].source and "400" in sphere.rows[0].source
    assert "</≤ 25 km" in accuracy_table([released, {**released, "protocol": "sphere"}]).markdown()


def test_the_report_shows_the_details_and_escapes_names(run: Path, result: dict[str, Any]) -> None:
    page = write_report(run, background=np.zeros((90, 180, 3), dtype=np.uint8)).read_text()
    assert "North America" in page and page.count('<table class="details">') == 1
    with Image.open(run / "figures" / "details.png") as figure:
        assert figure.width == 1600
    table = details_table({**result, "benchmark": "<script>"})
    assert table is not None and "<script>" not in table.html()


def test_the_reliability_curves_have_the_colours_of_the_legend_beside_them(result: dict[str, Any]) -> None:
    axes = new_figure(5, 5).subplots()
    _reliability(axes, result["calibration"])
    assert not axes.texts and axes.get_legend() is None
    colors = [line.get_color() for line in axes.lines[1:]]
    assert len(colors) == len(result["calibration"]) > 0 and colors == list(COLORS[: len(colors)])


def test_an_older_evaluation_has_no_details(tmp_path: Path) -> None:
    older = {"benchmark": "test", "n": 3}
    assert details_table(older) is None
    with pytest.raises(DataError, match="'test'"):
        draw_details(older, tmp_path / "details.png")


def test_without_training_locations_there_is_no_such_section_and_panel(tmp_path: Path, result: dict[str, Any]) -> None:
    unknown = {key: value for key, value in result.items() if not key.startswith(("by_training", "training"))}
    table = details_table(unknown)
    assert table is not None and len(table.sections) == 2
    for number, one in enumerate((result, unknown)):
        draw_details(one, tmp_path / f"{number}.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
