"""What a command writes into a README, and how the README comes out on a page."""

from __future__ import annotations

import pytest

from geoclip.drawing.study_pictures import Picture
from geoclip.drawing.study_readme import (
    fill_generated,
    first_words,
    generated_blocks,
    inline_html,
    read_sections,
    section_html,
    without_generated,
)
from geoclip.errors import DataError

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


def html(text: str) -> str:
    return section_html(text, link=lambda _target: "", picture=lambda _source: None)


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
    assert "\nc\n" in again and "\nc\n" not in without_generated(again, "tables")


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
    assert "old" not in without_generated(README, "tables") and "Mine." in without_generated(README, "tables")


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


def test_raw_html_is_words_and_comments_are_nothing() -> None:
    found = html("<!-- generated: x -->\n<script>alert(1)</script>\n\nA <img src=x onerror=y> <!-- c --> B")
    assert "<script" not in found and "<img" not in found
    assert "&lt;script&gt;alert(1)" in found
    assert "generated" not in found and "<!--" not in found
    assert "javascript:" not in html("[x](javascript:alert(1))").replace("[x](javascript:alert(1))", "")
    assert inline_html("a **b** `c` [d](e.md) ![f](g.png)<b>") == (
        'a <strong>b</strong> <code>c</code> <span class="elsewhere">d</span> <span class="elsewhere">f</span>&lt;b&gt;'
    )


def test_links_leave_the_page_only_where_they_can_be_followed() -> None:
    found = section_html(
        "[web](https://example.org/a) [other](../05_x/README.md) [file](../../conf/x.yaml)",
        link=lambda target: "../05_x/report.html" if "05_x" in target else "",
        picture=lambda _source: None,
    )
    assert '<a href="https://example.org/a" rel="noopener noreferrer">web</a>' in found
    assert '<a href="../05_x/report.html" rel="noopener noreferrer">other</a>' in found
    assert '<span class="elsewhere">file</span>' in found


def test_pictures_are_held_and_tables_scroll_and_commands_can_be_copied() -> None:
    chart = Picture(address="data:image/png;base64,AA", text="", is_chart=True)
    found = section_html(
        '![a "chart"](a.png) ![gone](gone.png)\n\n| x | y |\n|---|---:|\n| 1 | 2 |\n\n```bash\nmake <x>\n```\n',
        link=lambda _target: "",
        picture=lambda source: chart if source == "a.png" else None,
    )
    assert '<img class="chart" src="data:image/png;base64,AA" alt="a &quot;chart&quot;">' in found
    assert '<span class="elsewhere">gone</span>' in found
    assert '<div class="card"><table>' in found and "</table></div>" in found
    assert '<pre>make &lt;x&gt;</pre><button type="button" hidden>copy</button>' in found
