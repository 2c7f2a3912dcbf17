"""Sections and generated blocks of READMEs."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoclip.errors import DataError
from geoclip.studies.readme import fill_generated, first_words, generated_blocks, read_sections, study_list

README = """# 03 · Scales

## Cost

<!-- generated: cost -->
<!-- end -->

## Table

By hand.

<!-- generated: tables -->
| old |
|---|
<!-- end -->

## Verdict

Not run.
"""


def test_generated_blocks_are_filled_and_nothing_else_changes() -> None:
    filled = fill_generated(README, {"cost": "2 minutes\n", "tables": "| a |\n|---|\n\n![b](b.png)\n"})
    expected = README.replace("cost -->\n", "cost -->\n2 minutes\n")
    expected = expected.replace("| old |\n|---|\n", "| a |\n|---|\n\n![b](b.png)\n")
    assert filled == expected
    assert fill_generated(filled, {"cost": "2 minutes", "tables": "| a |\n|---|\n\n![b](b.png)"}) == filled
    assert fill_generated(filled, {"cost": "", "tables": "| old |\n|---|"}) == README


def test_a_block_records_the_configuration_of_its_results() -> None:
    made = fill_generated(README, {"cost": "a", "tables": "b"}, {"tables": "1a2b3c4d"})
    assert generated_blocks(made) == {"cost": "", "tables": "1a2b3c4d"}
    again = fill_generated(made, {"cost": "a", "tables": "c"}, {"tables": "5e6f7a8b"})
    assert generated_blocks(again)["tables"] == "5e6f7a8b" and "1a2b3c4d" not in again
    assert "\nc\n" in again


@pytest.mark.parametrize(
    ("text", "names", "named"),
    [
        (README, ["cost"], "tables"),
        (README, ["cost", "tables", "maps"], "maps"),
        (README.replace("<!-- end -->", "", 1), ["cost", "tables"], "cost --> .*<!-- end -->"),
        (README[: README.rindex("<!-- end")], ["cost", "tables"], "tables --> .*<!-- end -->"),
        (README + README, ["cost", "tables"], "cost"),
    ],
)
def test_a_wrong_marker_is_named(text: str, names: list[str], named: str) -> None:
    with pytest.raises(DataError, match=f"<!-- generated: {named}"):
        fill_generated(text, dict.fromkeys(names, ""))


def test_a_readme_is_split_at_headings_but_not_in_code() -> None:
    readme = read_sections("# Title\n\n## A\n\n```bash\n## no heading\n```\n\n### sub\n\n## B (dated)\n\nb\n")
    assert readme.title == "Title"
    assert list(readme.sections) == ["A", "B (dated)"]
    assert readme.section("B") == "b"
    assert "## no heading" in readme.section("A") and "### sub" in readme.section("A")
    assert readme.section("C") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- **One** scale\n  is not enough. Two are.\n- Second.", "**One** scale is not enough. Two are."),
        ("It loses 3.5 points. That was expected.", "It loses 3.5 points."),
        ("**More is better.** Nine gain 3.4 points.", "**More is better.**"),
        ("<!-- note -->\n\nYes.", "Yes."),
        ("", ""),
    ],
)
def test_the_first_bullet_or_sentence_is_the_short_verdict(text: str, words: str) -> None:
    assert first_words(text) == words


def test_the_committed_list_of_studies_is_up_to_date() -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    text = (experiments / "README.md").read_text(encoding="utf-8")
    listed = study_list(experiments)
    assert fill_generated(text, {"studies": listed}) == text, "make study-lists updates it"
    folders = [path.parent.name for path in experiments.glob("[0-9]*/results.json")]
    assert folders and all(f"({name}/README.md)" in listed for name in folders)
