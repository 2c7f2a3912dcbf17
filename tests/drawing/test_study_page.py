"""A study's page is made from what is committed alone, and says all of it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from geoclip.drawing.study_page import study_list, write_index, write_study_page
from geoclip.drawing.study_readme import fill_generated
from geoclip.errors import DataError
from tests.drawing.made_study import made_study

README = """# {title}

## Question

Does **{name}** matter?

## Expectation (2026-11-23, set before any result was seen)

- It does not.

## Command

```bash
make study NAME={name}
```

## Cost

<!-- generated: cost -->
<!-- end -->

## Table

By hand: [next](../02_waiting/README.md), [first](../01_made/), [code](../../geoclip/x.py), ![a picture](swept.png)

<!-- generated: tables -->
| stale |
|---|
| stale |
<!-- end -->

## Verdict

- **It does**, by 2 points. See `x`.
- More.

## Threats

<b>Few</b> seeds; ![outside](../secret.png).
"""


def make_experiments(parent: Path) -> Path:
    """Two studies, the first with results and two pictures, one of them dark."""
    experiments = parent / "experiments"
    for number, name in ((1, "made"), (2, "waiting")):
        folder = experiments / f"{number:02d}_{name}"
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(README.format(title=f"{number:02d} · A {name} <study>", name=name))
    made = experiments / "01_made"
    study = made_study("queue.size", {"0": 0, "256": 256, "1024": 1024}, "256", ("test", "test_unseen_cells"))
    (made / "results.json").write_text(json.dumps(study | {"notes": ["one run is <unfinished>"]}))
    Image.new("RGB", (1600, 900), "white").save(made / "swept.png")
    Image.new("RGB", (1600, 900), (13, 21, 32)).save(made / "wins.png")
    Image.new("RGB", (4, 4), "red").save(experiments / "secret.png")
    (experiments / "README.md").write_text("# Experiments\n")
    return experiments


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    return make_experiments(tmp_path)


def said(page: Path) -> str:
    """The page's words."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


def test_the_page_says_what_the_readme_and_the_results_say_in_order(experiments: Path) -> None:
    page = write_study_page(experiments / "01_made")
    words = said(page)
    at = [
        words.index(fact)
        for fact in (
            "01 · A made <study>", "3 variants · 3 seeds · 38,400 samples each · test: 343 images",
            "Does made matter?", "It does not.", "62.0 ± 1.2", "+2.0 (+1.0 to +3.0)", "one run is <unfinished>",
            "Figures", "It does , by", "<b>Few</b> seeds", "make study NAME=made", "Environment", "0123456789ab",
            "processor a <fast> one, cores 2", "runs/made-00000000",
        )
    ]  # fmt: skip
    assert at == sorted(at)
    assert "stale" not in words, "tables come from the numbers"
    assert "generated:" not in page.read_text()
    assert "Not run yet" not in words


def test_the_page_holds_its_pictures_and_fetches_nothing(experiments: Path) -> None:
    page = write_study_page(experiments / "01_made")
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"<img([^>]*) src=\"([^\"]{0,22})", text)
    assert [address for _, address in pictures] == ["data:image/png;base64,"] * 2, (
        "nothing outside its folder"
    )
    assert ["chart" in kind for kind, _ in pictures] == [True, False], "what is dark stays dark"
    assert "default-src 'none'" in unescape(text)
    links = set(re.findall(r'href="([^"]*)"', text))
    assert links == {"data:,", "../index.html", "../01_made/report.html"}, "what has no page is no link"


def test_a_study_that_was_not_run_says_how(experiments: Path) -> None:
    words = said(write_study_page(experiments / "02_waiting"))
    assert "Not run yet. This does it: make study NAME=waiting" in words
    assert "Environment" not in words
    assert "stale" in words, "without numbers the README's own table stands"


def test_the_index_says_what_came_out_of_each_study(experiments: Path) -> None:
    index = write_index(experiments)
    words, text = said(index), index.read_text(encoding="utf-8")
    assert "1 of 2 run" in words
    assert "01 · A made <study> Does made matter? It does , by 2 points. See x . 02 · A waiting" in words
    assert words.rstrip().endswith("Does waiting matter? not run yet")
    assert re.findall(r'<a href="([^"]*)"', text) == ["01_made/report.html"]
    assert re.findall(r'<img class="chart" src="([^"]{0,23})', text) == ["data:image/jpeg;base64,"]


def test_what_cannot_be_read_is_named(experiments: Path, tmp_path: Path) -> None:
    made = experiments / "01_made"
    for content, message in (
        ("{", "is no JSON"),
        ("[]", "no study's results"),
        ('{"benchmarks": {"test": {}}}', "lack"),
    ):
        (made / "results.json").write_text(content)
        with pytest.raises(DataError, match=message):
            write_study_page(made)
    (made / "results.json").unlink()
    (made / "swept.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"swept\.png is no picture"):
        write_study_page(made)
    (made / "README.md").unlink()
    with pytest.raises(DataError, match=r"README\.md is missing"):
        write_study_page(made)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no study"):
        write_index(tmp_path / "none")


def test_the_committed_list_of_studies_is_what_the_studies_say() -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    text = (experiments / "README.md").read_text(encoding="utf-8")
    listed = study_list(experiments)
    assert fill_generated(text, {"studies": listed}) == text, "make study-pages writes it anew"
    for folder in experiments.glob("[0-9]*/results.json"):
        assert f"({folder.parent.name}/README.md)" in listed
