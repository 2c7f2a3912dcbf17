"""A prediction is shown whole, opens without a network, and runs nothing that a file's name brought along."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geoclip.errors import DataError
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


class Page(HTMLParser):
    """What a browser would load, link to and run, and what the table says."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded, self.anchors, self.scripts, self.cells = list[str](), list[str](), 0, list[str]()
        self.policy, self.figures, self._inside = "", "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.scripts += tag == "script"
        self._inside = given.get("id", tag)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag == "a":
            self.anchors.append(given["href"])
        else:
            loading = ("src", "href", "srcset", "data", "poster", "action", "xlink:href", "background")
            self.loaded += [given[name] for name in loading if name in given]

    def handle_data(self, data: str) -> None:
        if self._inside == "figures":
            self.figures += data
        elif self._inside in ("td", "a"):
            self.cells.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def page_of_two(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "predictions.html"
    named_to_break_out = "</script><script>alert(1)</script>.jpg"
    views = [prediction(), prediction(named_to_break_out, truth_deg=None, photo=None)]
    write_predictions_html(path, GALLERY, iter(views), BLACK)
    return path.read_text(encoding="utf-8")


def test_the_page_fetches_nothing(page_of_two: str) -> None:
    """Nothing in the markup loads, and the page's own policy forbids what a script might try."""
    page = Page(page_of_two)
    assert page.loaded, "the photograph is in the page"
    assert all(address.startswith("data:") for address in page.loaded)
    sources = dict(rule.split(maxsplit=1) for rule in page.policy.split("; "))
    assert sources["default-src"] == "'none'"
    allowed = {source for rule in sources.values() for source in rule.split()}
    assert allowed == {"'none'", "'unsafe-inline'", "data:", "blob:"}, "no address of any host"


def test_styles_load_nothing(page_of_two: str) -> None:
    style = page_of_two[page_of_two.index("<style>") : page_of_two.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style


def test_a_file_name_is_text_and_never_a_script(page_of_two: str) -> None:
    assert Page(page_of_two).scripts == 3, "plotly.js, the figures, and the few lines that show them"
    assert "<script>alert" not in page_of_two


def test_the_table_links_every_guess_to_a_map(page_of_two: str) -> None:
    page = Page(page_of_two)
    lat, lon = GALLERY[TOP[0]]
    assert page.anchors[0] == f"https://www.google.com/maps?q={lat:.6f},{lon:.6f}"
    assert len(page.anchors) == 2 * 5 + 1, "five guesses of each photograph, and one truth"
    assert page.cells.count(location_text(lat, lon)) == 2
    assert probability_text(PROBABILITY[TOP[0]]) in page.cells


def test_the_map_shows_the_guesses_and_the_truth_where_they_are(page_of_two: str) -> None:
    with_truth, without = json.loads(Page(page_of_two).figures)
    best = with_truth["data"][-1]
    assert best["text"] == ["1"], "the best guess is drawn last, on top"
    assert decoded(best["y"]) == pytest.approx(GALLERY[TOP[:1], 0], abs=1e-5)
    assert decoded(best["x"]) == pytest.approx(GALLERY[TOP[:1], 1], abs=1e-5)
    stars = [trace for trace in with_truth["data"] if trace["marker"].get("symbol") == "star"]
    assert [(decoded(star["y"]), decoded(star["x"])) for star in stars] == [([48.85], [2.35])]
    assert len(with_truth["data"]) == len(without["data"]) + 1
    assert len(decoded(with_truth["data"][0]["x"])) == 1000, "so many of the hottest answer to the pointer"


def decoded(values: object) -> list[float]:
    """Numbers as plotly.js takes them: a list, or bytes in base64."""
    if isinstance(values, dict):
        values = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    assert isinstance(values, list)
    return values


def test_one_photograph_makes_a_page_with_its_name_and_no_choice(tmp_path: Path) -> None:
    alone = Prediction(
        title="Straße & Brücke.jpg",
        probability_G=PROBABILITY,
        top_deg_k2=GALLERY[TOP],
        top_probability_k=PROBABILITY[TOP],
    )
    write_predictions_html(tmp_path / "one.html", GALLERY, [alone], BLACK)
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "<h1>Straße &amp; Brücke.jpg</h1>" in text
    assert "<select" not in text
    assert not re.search(r"<img", text), "there is no photograph to show"


@pytest.mark.parametrize("portrait", [(60, 400), (400, 60)])
def test_the_picture_takes_photographs_of_any_shape(tmp_path: Path, portrait: tuple[int, int]) -> None:
    tall = Prediction(
        title="a" * 300,
        probability_G=PROBABILITY,
        top_deg_k2=GALLERY[TOP],
        top_probability_k=PROBABILITY[TOP],
        truth_deg=(-89.0, 10.0),
        photo=Image.new("RGBA", portrait, (250, 10, 10, 255)),
    )
    draw_prediction_png(tmp_path / "map.png", GALLERY, tall, BLACK)
    with Image.open(tmp_path / "map.png") as image:
        red = np.asarray(image.convert("RGB")).astype(int)
    rows, columns = np.nonzero((red[..., 0] > 240) & (red[..., 1] < 20))
    drawn = (columns.max() - columns.min() + 1) / (rows.max() - rows.min() + 1)
    assert drawn == pytest.approx(portrait[0] / portrait[1], rel=0.05), "it is not stretched"


def test_close_guesses_hide_none_of_each_other() -> None:
    at_N2 = np.array([[0, 0], [0, 0], [0.1, 0], [3, 0], [100, 50], [0, 0], [0, 0], [0, 0]], dtype=float)
    mark_N2 = marks_apart(at_N2, 10.0)
    apart_NN = np.linalg.norm(mark_N2[:, None] - mark_N2, axis=2)
    assert apart_NN[~np.eye(len(at_N2), dtype=bool)].min() >= 10
    assert mark_N2[[0, 4]].tolist() == at_N2[[0, 4]].tolist(), "what hides nothing stays where it is"
    assert np.linalg.norm(mark_N2 - at_N2, axis=1).max() < 30


def test_the_heat_spans_what_tells_places_apart() -> None:
    blunt, sharp = softmax(0.01 * RNG.normal(size=1000)), softmax(50 * RNG.normal(size=1000))
    for probability, decades in ((blunt, 2), (sharp, 6)):
        low, high = heat_range(probability)
        assert high == pytest.approx(np.log10(probability.max()))
        assert high - low == pytest.approx(decades)
    middling = 10.0 ** np.linspace(-8, 0, 1001)
    assert heat_range(middling) == pytest.approx((-4, 0)), "from the gallery's median to its best place"
    assert decade_ticks(-3.5, -0.2) == [-3, -2, -1]


def test_places_and_probabilities_are_written_for_people() -> None:
    assert location_text(48.8584, 2.29448) == "48.8584° N, 2.2945° E"
    assert location_text(-33.85, -70.5) == "33.8500° S, 70.5000° W"
    assert [probability_text(p) for p in (0.416, 0.0213, 0.005, 1.234e-7)] == ["42 %", "2.1 %", "0.50 %", "1e-05 %"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"probability_G": PROBABILITY[:-1]}, "1499 probabilities for 1500 gallery places"),
        ({"probability_G": np.full(1500, np.nan)}, "not finite"),
        ({"probability_G": np.zeros(1500)}, "not finite and positive"),
        ({"top_deg_k2": np.empty((0, 2)), "top_probability_k": np.empty(0)}, "no coordinate"),
        ({"top_probability_k": PROBABILITY[:2]}, "do not pair"),
        ({"truth_deg": (np.nan, 0.0)}, "true place: row 0"),
    ],
)
def test_a_prediction_that_cannot_be_shown_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"photo.jpg.*{words}"):
        write_predictions_html(tmp_path / "page.html", GALLERY, [prediction(**changed)], BLACK)
    with pytest.raises(DataError, match="no prediction"):
        write_predictions_html(tmp_path / "page.html", GALLERY, [], BLACK)
    assert not list(tmp_path.iterdir())
