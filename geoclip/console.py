"""What is shown: text that is safe for a terminal and in Markdown, log messages, tables.

File names, keys in tars and values in published configurations come from other people. Printed as they are, escape
sequences in them could rewrite the screen or the clipboard, and rich's markup in them could end a table in an error.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_ESCAPED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # controls, direction marks, surrogates, line separators
_JOINERS = "\u200c\u200d"  # which words of Persian and Hindi are spelled with


def printable(text: object, *, keep: str = "\n\t") -> str:
    r"""`text` with everything that a terminal would obey, or that no encoding can write, as \x1b, \u202e, \udcff.

    Args:
        text: what is printed.
        keep: characters that stay as they are.
    """
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _ESCAPED
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def markdown_text(text: object) -> str:
    """`text` as Markdown that shows it and does nothing else: no HTML, no link, no new cell, no second line."""
    shown = printable(" ".join(str(text).split()), keep="")
    for plain, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(plain, entity)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", shown)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def setup_streams() -> None:
    """Let nothing that is printed fail for its characters: what the encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def setup_logging(level: int = logging.INFO) -> None:
    """Messages on stderr from this level on; a second call changes the level alone."""
    root = logging.getLogger()
    if not root.handlers:
        screen = logging.StreamHandler()
        screen.setFormatter(_SafeFormatter("%(message)s"))
        root.addHandler(screen)
    root.setLevel(logging.INFO)
    for handler in root.handlers:
        handler.setLevel(level)


def log_file_formatter() -> logging.Formatter:
    """For a file of log messages, which is read in a terminal too."""
    return _SafeFormatter("%(asctime)s %(levelname)s %(message)s")


def show(*renderables: Any, min_width: int = 0) -> None:
    """Print tables and texts of rich, at least so many columns wide; markup and escape sequences are not obeyed."""
    console = _console()
    console.width = max(console.width, min_width)
    console.print(*renderables)


def _console() -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return SafeConsole(markup=False, emoji=False)
