"""Other people's names are shown, and neither obeyed nor a reason to fail."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from markdown_it import MarkdownIt
from rich.table import Table

from geoclip.console import log_file_formatter, markdown_text, printable, setup_streams, show

HOSTILE = "a\x1b]52;c;ZXZpbA==\x07\x9b31m\r\u202ejpg.exe\udce9"


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable() and shown.startswith("a\\x1b]52") and "\\u202e" in shown and "\\udce9" in shown
    assert printable("Nîmes, 東京\tمی‌خواهم\n") == "Nîmes, 東京\tمی‌خواهم\n"


def test_messages_and_log_files_are_safe() -> None:
    record = logging.LogRecord("geoclip", logging.INFO, "", 0, "skipped %s", (HOSTILE,), None)
    assert log_file_formatter().format(record).isprintable()


def test_tables_show_escapes_and_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="[/nothing] [link=file:///etc]title[/link] :smile:")
    table.add_column("a column wider than the title and what is in its cells, so that nothing is broken")
    table.add_row("[red]IMG[1].jpg\x1b[2J\x9b31m")
    show(table, "[bold]caption[/]", min_width=100)
    printed = capsys.readouterr().out
    assert "[/nothing] [link=file:///etc]title[/link] :smile:" in printed
    assert "[red]IMG[1].jpg\\x1b[2J\\x9b31m" in printed and "[bold]caption[/]" in printed
    assert not {"\x1b", "\x9b"} & set(printed)


def test_no_encoding_is_a_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    setup_streams()
    print("5° à Nîmes \udce9")
    stream.flush()
    written = stream.buffer
    assert isinstance(written, io.BytesIO) and written.getvalue() == b"5\\xb0 \\xe0 N\\xeemes \\udce9\n"


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "[link](javascript:alert(1))",
        "![x](http://example.com/x.png)",
        "a | b",
        "`code` *bold* ~~gone~~ \\",
        "two\n\n# lines",
        "&lt;img src=x onerror=alert(1)&gt;",
    ],
)
def test_markdown_shows_a_name_and_nothing_else(name: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = parser.render(f"| name | next |\n|---|---|\n| {markdown_text(name)} | last |\n")
    assert page.count("<td>") == 2
    assert not any(tag in page for tag in ("<script", "<a ", "<img", "<code", "<em", "<s>", "<h1"))
