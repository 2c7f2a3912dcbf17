"""Text for people: safe to print on any terminal, logged in one form, and shares in per cent."""

from __future__ import annotations

import io
import logging
import math
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


class _LossyFile(io.FileIO):
    """Standard output or error, which a full disk does not make fail: what it does not take is lost."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:  # its reader wants no more: the command ends
            raise
        except OSError as error:
            self.error = error
            return len(data)


def setup_streams() -> None:
    """Let nothing that is printed fail: for its characters, which become escapes, or for want of room on a disk."""
    logging.raiseExceptions = False  # no traceback where a log file's disk is full
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        if stream is getattr(sys, f"__{name}__") and not isinstance(_file_of(stream), _LossyFile):
            safe = io.TextIOWrapper(
                io.BufferedWriter(_LossyFile(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, safe)


def lost_output() -> str:
    """One sentence on what could not be printed, and why; empty where all was."""
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            if isinstance(file := _file_of(stream), _LossyFile) and file.error:
                return f"a part of {name} is lost ({file.error.strerror}); make room where it is written"
    return ""


def _file_of(stream: io.TextIOWrapper) -> Any:
    return getattr(stream.buffer, "raw", None)


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
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return SafeConsole(markup=False, emoji=False)


MOST_DIGITS = 9


def percent_text(percent: float, digits: int = 1) -> str:
    """A share in percent without its sign: 100 only where it is all, 0 only where it is none, – where it is unknown.

    Args:
        percent: in [0, 100].
        digits: after the point; more are printed where these alone would say 0 or 100.
    """
    if math.isnan(percent):
        return "–"
    if math.isclose(percent, 100, abs_tol=10**-MOST_DIGITS):
        return "100"
    texts = (f"{percent:.{count}f}" for count in range(digits, MOST_DIGITS + 1))
    return next((text for text in texts if float(text) not in (0, 100)), f"{0:.{digits}f}")


def probability_text(probability: float) -> str:
    """A probability with at least two digits, in percent with its sign."""
    percent = 100 * probability
    if percent == 0 or percent >= 9.95:
        return f"{percent_text(percent, 0)} %"
    return f"{percent:#.2g} %" if percent >= 0.01 else f"{percent:.0e} %"
