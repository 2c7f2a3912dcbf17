"""Maps and pages of predictions: they need no network, and a file name cannot run a script."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geoclip.inference.prediction_map import (
    Prediction,
    decade_ticks,
    draw_prediction_png,
    heat_range,
    location_text,
    marks_apart,
)
from geoclip.inference.prediction_page import write_predictions_html
from geoclip.system.console import probability_text

BLACK = np.zeros((90, 180, 3), dtype=np.uint8)
RNG = np.random.default_rng(0)
GALLERY = np.column_stack((RNG.uniform(-50, 80, 1500), RNG.uniform(-180, 180, 1500)))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.exp(logits - logits.max())
    return np.asarray(share / share.sum())


PROBABILITY = softmax(20 * RNG.normal(size=1500))
TOP = np.argsort(PROBABILITY)[::-1][:5]


def prediction(title: str = "photo.jpg", **changed: Any) -> Prediction:
    values: dict[str, Any] = {
        "title": title,
        "probability_G": PROBABILITY,
        "top_deg_k2": GALLERY[TOP],
        "top_probability_k": PROBABILITY[TOP],
        "truth_deg": (48.85, 2.35),
        "photo": Image.new("RGB", (300, 200), (200, 30, 30)),
    }
    return Prediction(**{**values, **changed})


SCRIPT = re.compile(r"(<script[^>]*>)(.*?)</script>", re.DOTALL)


def markup_of(page: str) -> str:
    """The page without the contents of its scripts."""
    return SCRIPT.sub(r"\1</script>", page)


def figures_of(page: str) -> list[dict[str, Any]]:
    (figures,) = [text for tag, text in SCRIPT.findall(page) if 'id="figures"' in tag]
    return list(json.loads(figures))


@pytest.fixture(scope="module")
def page_of_two(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "predictions.html"
    script_name = "</script><script>alert(1)</script>.jpg"
    views = [prediction(), prediction(script_name, truth_deg=None, photo=None)]
    write_predictions_html(path, GALLERY, views, BLACK)
    return path.read_text(encoding="utf-8")


def test_the_page_fetches_nothing(page_of_two: str) -> None:
    """Neither markup nor styles load anything, and the policy of the page forbids it to scripts."""
    markup = markup_of(page_of_two)
    assert "@import" not in markup and "url(" not in markup
    loading = r"(?:src|href|srcset|data|poster|action|background)"
    addresses = re.findall(rf'<(?!a )[^>]*\s{loading}="([^"]*)"', markup)
    assert addresses and all(address.startswith("data:") for address in addresses)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', markup)
    sources = dict(rule.split(maxsplit=1) for rule in html.unescape(policy).split("; "))
    assert sources["default-src"] == "'none'"
    allowed = {source for rule in sources.values() for source in rule.split()}
    assert allowed == {"'none'", "'unsafe-inline'", "data:", "blob:"}


def test_a_file_name_is_never_a_script(page_of_two: str) -> None:
    assert markup_of(page_of_two).count("<script") == 3, "plotly.js, the figures, and the lines that show them"
    assert "<script>alert" not in page_of_two


def test_every_prediction_has_a_link(page_of_two: str) -> None:
    links = re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', markup_of(page_of_two))
    lat, lon = GALLERY[TOP[0]]
    assert links[0] == (f"https://www.google.com/maps?q={lat:.6f},{lon:.6f}", location_text(lat, lon))
    assert len(links) == 2 * 5 + 1, "five predictions of each photograph, and one truth"
    assert f"<td>{probability_text(PROBABILITY[TOP[0]])}</td>" in page_of_two


def test_the_map_has_predictions_and_truth_at_their_coordinates(page_of_two: str) -> None:
    with_truth, without = figures_of(page_of_two)
    best = with_truth["data"][-1]
    assert best["text"] == ["1"], "the best is drawn last, on top"
    assert decoded(best["y"]) == pytest.approx(GALLERY[TOP[:1], 0], abs=1e-5)
    assert decoded(best["x"]) == pytest.approx(GALLERY[TOP[:1], 1], abs=1e-5)
    stars = [trace for trace in with_truth["data"] if trace["marker"].get("symbol") == "star"]
    assert [(decoded(star["y"]), decoded(star["x"])) for star in stars] == [([48.85], [2.35])]
    assert len(with_truth["data"]) == len(without["data"]) + 1
    assert len(decoded(with_truth["data"][0]["x"])) == 1000


def decoded(values: object) -> list[float]:
    """Numbers as plotly.js takes them: a list, or bytes in base64."""
    if isinstance(values, dict):
        values = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    assert isinstance(values, list)
    return values


def test_a_page_of_one_prediction_has_its_title_and_no_list(tmp_path: Path) -> None:
    write_predictions_html(tmp_path / "one.html", GALLERY, [prediction("Straße & Brücke.jpg", photo=None)], BLACK)
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "<h1>Straße &amp; Brücke.jpg</h1>" in text
    assert "<select" not in text and "<img" not in text


@pytest.mark.parametrize("portrait", [(60, 400), (400, 60)])
def test_photographs_of_any_shape_are_not_stretched(tmp_path: Path, portrait: tuple[int, int]) -> None:
    photo = Image.new("RGBA", portrait, (250, 10, 10, 255))
    one = prediction("a" * 300, truth_deg=(-89.0, 10.0), photo=photo)
    draw_prediction_png(tmp_path / "map.png", GALLERY, one, BLACK)
    with Image.open(tmp_path / "map.png") as image:
        red = np.asarray(image.convert("RGB")).astype(int)
    rows, columns = np.nonzero((red[..., 0] > 240) & (red[..., 1] < 20))
    drawn = (columns.max() - columns.min() + 1) / (rows.max() - rows.min() + 1)
    assert drawn == pytest.approx(portrait[0] / portrait[1], rel=0.05)


def test_close_marks_do_not_overlap() -> None:
    at_N2 = np.array([[0, 0], [0, 0], [0.1, 0], [3, 0], [100, 50], [0, 0], [0, 0], [0, 0]], dtype=float)
    mark_N2 = marks_apart(at_N2, 10.0)
    apart_NN = np.linalg.norm(mark_N2[:, None] - mark_N2, axis=2)
    assert apart_NN[~np.eye(len(at_N2), dtype=bool)].min() >= 10
    assert mark_N2[[0, 4]].tolist() == at_N2[[0, 4]].tolist()
    assert np.linalg.norm(mark_N2 - at_N2, axis=1).max() < 30


def test_the_range_of_the_heat_is_two_to_six_decades() -> None:
    blunt, sharp = softmax(0.01 * RNG.normal(size=1000)), softmax(50 * RNG.normal(size=1000))
    for probability, decades in ((blunt, 2), (sharp, 6)):
        low, high = heat_range(probability)
        assert high == pytest.approx(np.log10(probability.max()))
        assert high - low == pytest.approx(decades)
    middling = 10.0 ** np.linspace(-8, 0, 1001)
    assert heat_range(middling) == pytest.approx((-4, 0)), "from the median to the maximum"
    assert decade_ticks(-3.5, -0.2) == [-3, -2, -1]


def test_texts_of_locations_and_probabilities() -> None:
    assert location_text(48.8584, 2.29448) == "48.8584° N, 2.2945° E"
    assert location_text(-33.85, -70.5) == "33.8500° S, 70.5000° W"
    assert [probability_text(p) for p in (0.416, 0.0213, 0.005, 1.234e-7)] == ["42 %", "2.1 %", "0.50 %", "1e-05 %"]
