"""Locations are drawn at their pixels, and invalid ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from geoclip.errors import DataError
from geoclip.inference.prediction_map import _draw_scale
from geoclip.plotting.maps import draw_distribution, draw_predictions, great_circles
from geoclip.plotting.world import (
    DPI,
    WIDTH_IN,
    height_in,
    new_figure,
    save_figure,
    show_names_as_they_are,
    south_north,
)

BLACK = np.zeros((90, 180, 3), dtype=np.uint8)
POLES = np.array([[89.9, 0.0], [-89.9, 0.0]])  # make the map show every latitude


def read(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


def expected_pixel(lat: float, lon: float) -> tuple[float, float]:
    """Column and row in a picture of one split whose map shows the whole Earth."""
    left, top, width = 0.3 * DPI, 0.42 * DPI, (WIDTH_IN - 0.6) * DPI
    return left + (lon + 180) / 360 * width, top + (90 - lat) / 180 * width / 2


@pytest.fixture(scope="module")
def only_poles(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.int16]:
    path = tmp_path_factory.mktemp("map") / "poles.png"
    draw_distribution({"train": POLES}, BLACK, path)
    return read(path)


@pytest.mark.parametrize(("lat", "lon"), [(0.0, 0.0), (-33.9, 151.2), (64.1, -179.0)])
def test_a_location_is_drawn_at_its_pixel(
    tmp_path: Path, only_poles: NDArray[np.int16], lat: float, lon: float
) -> None:
    draw_distribution({"train": np.vstack((POLES, [[lat, lon]]))}, BLACK, tmp_path / "with.png")
    changed = np.abs(read(tmp_path / "with.png") - only_poles).max(axis=2) > 60
    changed[: round(0.4 * DPI)] = False  # the count above the map changes as well
    rows, columns = np.nonzero(changed)
    column, row = expected_pixel(lat, lon)
    assert columns.mean() == pytest.approx(column, abs=1.5)
    assert rows.mean() == pytest.approx(row, abs=1.5)


def test_north_is_up(tmp_path: Path) -> None:
    north_white = BLACK.copy()
    north_white[:45] = 255
    draw_distribution({"train": POLES}, north_white, tmp_path / "map.png")
    picture = read(tmp_path / "map.png")
    column, north = expected_pixel(44.0, 10.0)
    _, south = expected_pixel(-44.0, 10.0)
    assert picture[round(north), round(column)].mean() > picture[round(south), round(column)].mean() + 60


def test_every_split_gets_a_panel(tmp_path: Path) -> None:
    heights = []
    for count in range(1, 4):
        draw_distribution(dict.fromkeys("abc"[:count], np.zeros((2, 2))), BLACK, tmp_path / "map.png")
        heights.append(len(read(tmp_path / "map.png")))
    one, two, three = heights
    assert two < one, "two panels are side by side"
    assert three == pytest.approx(one + two - 0.3 * DPI, abs=2), "of three the first is wide"


def test_antarctica_is_shown_if_a_location_is_there() -> None:
    paris, south_pole = np.array([[48.9, 2.3]]), np.array([[-90.0, 0.0]])
    assert south_north(paris) == (-60, 85)
    assert south_north(paris, south_pole) == (-90, 90)
    assert height_in(360, (-90, 90)) == 180


def test_a_great_circle_takes_the_short_way_over_the_pacific() -> None:
    tokyo, los_angeles = np.array([[35.7, 139.7]]), np.array([[34.1, -118.2]])
    lon, lat = great_circles(tokyo, los_angeles)[0].T
    assert lon[0] == pytest.approx(139.7)
    assert lon[-1] == pytest.approx(360 - 118.2), "longitude is continuous over the antimeridian"
    assert lat.max() > 46, "a great circle bends towards the pole"
    assert np.abs(np.diff(lon)).max() < 5


def test_a_great_circle_of_no_length_is_its_point_and_one_to_the_antipodes_is_finite() -> None:
    here = np.array([[12.0, 34.0]])
    assert np.allclose(great_circles(here, here), [34.0, 12.0])
    assert np.isfinite(great_circles(here, np.array([[-12.0, -146.0]]))).all()


def test_a_line_leads_to_a_far_prediction(tmp_path: Path) -> None:
    truth = np.array([[0.0, -60.0], [40.0, 10.0]])
    near, far = truth + 0.01, truth + np.array([[0.0, 120.0], [0.01, 0.01]])
    draw_predictions(truth, near, np.array([1.6, 1.6]), BLACK, tmp_path / "near.png")
    draw_predictions(truth, far, np.array([13_343.0, 1.6]), BLACK, tmp_path / "far.png")
    near_picture, far_picture = read(tmp_path / "near.png"), read(tmp_path / "far.png")
    width, top = (WIDTH_IN - 0.6) * DPI, 0.75 * DPI
    row, middle = (round(top + 85 / 360 * width), round(0.3 * DPI + width / 2))  # (0, 0): the map shows 85° N to 60° S
    band = slice(row - 2, row + 3)
    change = np.abs(far_picture[band, middle - 5 : middle + 5] - near_picture[band, middle - 5 : middle + 5])
    assert change.max() > 40


@pytest.mark.parametrize(
    ("gps_deg", "named"),
    [
        (np.empty((0, 2)), "split 'train'"),
        (np.array([[1.0, 2.0], [np.nan, 3.0]]), "row 1 .*nan, 3.0"),
        (np.array([[91.0, 0.0]]), "row 0 .*91.0, 0.0"),
        (np.array([[0.0, 181.0]]), "row 0 .*0.0, 181.0"),
        (np.array([1.0, 2.0]), "\\(2,\\)"),
    ],
)
def test_invalid_coordinates_are_refused_with_their_row(
    tmp_path: Path, gps_deg: NDArray[np.float64], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        draw_distribution({"train": gps_deg}, BLACK, tmp_path / "map.png")
    assert not list(tmp_path.iterdir()), "no partial file"


@pytest.mark.parametrize("error_km", [[0.0], [0.0, np.nan], [0.0, -1.0]])
def test_predictions_without_valid_errors_are_refused(tmp_path: Path, error_km: list[float]) -> None:
    locations = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(DataError, match="predictions"):
        draw_predictions(locations, locations, np.array(error_km), BLACK, tmp_path / "map.png")
    with pytest.raises(DataError, match="split"):
        draw_distribution({}, BLACK, tmp_path / "map.png")


@pytest.mark.parametrize("name", ["$\\frac{$.jpg", "$x$"])
def test_a_name_is_not_a_formula(tmp_path: Path, name: str) -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot(title=name, xlabel=name)
    axes.set_yscale("log")
    axes.set_ylim(1, 1e6)
    figure.text(0, 0, name)
    save_figure(figure, tmp_path / "a.png")
    assert not axes.title.get_parse_math() and axes.yaxis.get_major_ticks()[0].label1.get_parse_math()


def test_the_probability_scale_is_readable_without_formulas() -> None:
    figure = new_figure(10, 2)
    _draw_scale(figure, 0, 1, -8.2, -0.5)
    show_names_as_they_are(figure)
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert "10⁻⁸" in labels and "10⁻¹" in labels and not any("$" in label for label in labels)
