"""The pages of studies in a real browser: they open, fetch nothing, and are readable on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoclip.drawing.study_page import write_index, write_study_page
from tests.drawing.test_study_page import make_experiments

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_experiments(tmp_path_factory.mktemp("pages"))
    write_study_page(folder / "01_made")
    write_index(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


class Watched:
    """A page in the browser, and what it asked for and complained of."""

    def __init__(self, browser: Any, width: int, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.requests = list[str]()
        self.complaints = list[str]()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page

    def fetched(self) -> set[str]:
        return {url for url in self.requests if not url.startswith("data:")}


@pytest.mark.parametrize("width", [1280, 360])
def test_a_study_opens_without_complaint_or_network_at_every_width(
    browser: Any, experiments: Path, width: int
) -> None:
    path = experiments / "01_made" / "report.html"
    watched = Watched(browser, width)
    page = watched.open(path)
    assert page.locator("h1").inner_text() == "01 · A made <study>"
    assert page.locator("h1").is_visible()
    assert page.locator("table").first.is_visible()
    assert page.locator("table").count() == 4, "values and gains on two benchmarks"
    sizes = page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert sizes == [[True, 1600]] * 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width, (
        "the page itself does not scroll sideways"
    )
    boxes = page.evaluate("[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().width)")
    if width == 360:
        assert max(boxes) > width, "a wide table scrolls in its own box"
    assert watched.fetched() == {path.as_uri()}
    assert watched.complaints == []
    watched.context.close()


@pytest.mark.parametrize("width", [1280, 360])
def test_the_index_leads_to_the_study_and_back(browser: Any, experiments: Path, width: int) -> None:
    index, report = experiments / "index.html", experiments / "01_made" / "report.html"
    watched = Watched(browser, width, "dark")
    page = watched.open(index)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 21, 32)", (
        "dark where asked"
    )
    page.get_by_role("link", name="01 · A made <study>").click()
    assert page.url == report.as_uri()
    page.get_by_role("link", name="all studies").click()
    assert page.url == index.as_uri()
    assert watched.fetched() == {index.as_uri(), report.as_uri()}
    assert watched.complaints == []
    watched.context.close()


def test_a_command_is_copied_by_its_button(browser: Any, experiments: Path) -> None:
    watched = Watched(browser, 1280)
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.open(experiments / "01_made" / "report.html")
    button = page.get_by_role("button", name="copy")
    button.click()
    page.get_by_role("button", name="copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "make study NAME=made"
    watched.context.close()


def test_whatever_a_page_tries_nothing_is_fetched(browser: Any, experiments: Path) -> None:
    watched = Watched(browser, 1280)
    page = watched.open(experiments / "01_made" / "report.html")
    page.evaluate(
        "() => { const image = new Image(); image.src = '../secret.png'; document.body.append(image); }"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("[...document.images].at(-1).naturalWidth") == 0
    assert any("Content Security Policy" in complaint for complaint in watched.complaints)
    watched.context.close()
