"""What a command writes into a README, and what it reads from one."""

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

Mine.

<!-- generated: tables -->
| old |
|---|
<!-- end -->

## Verdict

Not run.
"""


def test_generated_blocks_are_filled_and_nothing_else_is_touched() -> None:
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
    ("text", "blocks", "message"),
    [
        (README, {"cost": ""}, "generated: tables --> is written by no command"),
        (README, {"cost": "", "tables": "", "maps": ""}, "lacks the line <!-- generated: maps -->"),
        (README.replace("<!-- end -->", "", 1), {"cost": "", "tables": ""}, "cost --> has no <!-- end -->"),
        (README[: README.rindex("<!-- end")], {"cost": "", "tables": ""}, "tables --> has no <!-- end -->"),
        (README + README, {"cost": "", "tables": ""}, "cost --> stands twice"),
    ],
)
def test_a_marker_that_does_not_fit_is_named(text: str, blocks: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fill_generated(text, blocks)


def test_a_readme_is_cut_at_its_headings_but_not_in_code() -> None:
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
def test_the_first_bullet_or_sentence_is_the_verdict_in_short(text: str, words: str) -> None:
    assert first_words(text) == words


def test_the_committed_list_of_studies_is_what_the_studies_say() -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    text = (experiments / "README.md").read_text(encoding="utf-8")
    listed = study_list(experiments)
    assert fill_generated(text, {"studies": listed}) == text, "make study-lists writes it anew"
    for folder in experiments.glob("[0-9]*/results.json"):
        assert f"({folder.parent.name}/README.md)" in listed
