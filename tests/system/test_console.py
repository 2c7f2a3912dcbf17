"""Names from untrusted files are shown; they neither control the terminal nor make printing fail."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.table import Table

from geoclip.system.console import log_file_formatter, markdown_text, printable, setup_streams, show

HOSTILE = "a\x1b]52;c;ZXZpbA==\x07\x9b31m\r\u202ejpg.exe\udce9"


def test_control_characters_are_escaped() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable() and shown.startswith("a\\x1b]52") and "\\u202e" in shown and "\\udce9" in shown
    assert printable("Nîmes, 東京\tمی‌خواهم\n") == "Nîmes, 東京\tمی‌خواهم\n"
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


def test_characters_outside_the_encoding_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    setup_streams()
    print("5° à Nîmes \udce9")
    stream.flush()
    written = stream.buffer
    assert isinstance(written, io.BytesIO) and written.getvalue() == b"5\\xb0 \\xe0 N\\xeemes \\udce9\n"


FULL_DISK = """
import logging, sys
from tqdm import tqdm
from geoclip.system.console import setup_logging
from geoclip.cli.app import run_entry_point
from geoclip.config import ProbeConfig

def main(cfg):
    setup_logging()
    for number in tqdm(range(3)):
        logging.info("message %d", number)
        print("result", number)
    open(sys.argv[-1].partition("=")[2], "w").write("complete")

run_entry_point("probe", ProbeConfig, main)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("full", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_full_disk_behind_the_output_ends_nothing_early(full: tuple[str, ...], tmp_path: Path) -> None:
    with open("/dev/full", "w") as disk:
        out, err = (disk if name in full else subprocess.PIPE for name in ("stdout", "stderr"))
        command = [sys.executable, "-c", FULL_DISK, f"checkpoint={tmp_path}/written"]
        done = subprocess.run(command, text=True, timeout=120, cwd=tmp_path, stdout=out, stderr=err)
    assert done.returncode == 1
    assert (tmp_path / "written").read_text() == "complete"
    shown = (done.stdout or "") + (done.stderr or "")
    assert "Traceback" not in shown and ("No space left" in shown) == (len(full) == 1)


@pytest.mark.parametrize(
    "name",
    [
        *("<script>alert(1)</script>", "[link](javascript:alert(1))", "![x](http://example.com/x.png)", "a | b"),
        *("`code` *bold* ~~gone~~ \\", "two\n\n# lines", "&lt;img src=x onerror=alert(1)&gt;"),
    ],
)
def test_markdown_shows_a_name_and_nothing_else(name: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = parser.render(f"| name | next |\n|---|---|\n| {markdown_text(name)} | last |\n")
    assert page.count("<td>") == 2
    assert not any(tag in page for tag in ("<script", "<a ", "<img", "<code", "<em", "<s>", "<h1"))
