"""Console output: text that is safe on any terminal, logging, tables, percentages."""

from __future__ import annotations

import html
import io
import logging
import math
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

_ESCAPED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # controls, direction marks, surrogates, line separators
_JOINERS = "\u200c\u200d"  # parts of words in Persian and Hindi


def printable(text: object, *, keep: str = "\n\t") -> str:
    r"""`text` with control characters and unencodable ones as \x1b, \u202e, \udcff; those in `keep` stay."""
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _ESCAPED
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def markdown_text(text: object) -> str:
    """`text` escaped for one line or table cell of Markdown: no HTML, no links."""
    shown = html.escape(printable(" ".join(str(text).split()), keep=""), quote=False)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", shown)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _LossyFile(io.FileIO):
    """Standard output or error; a full disk loses text and raises nothing."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or keep the error; raises BrokenPipeError alone."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:  # the reader closed the pipe: the command ends
            raise
        except OSError as error:
            self.error = error
            return len(data)


def setup_streams() -> None:
    """Make printing safe: characters that cannot be encoded become escapes, and a full disk raises nothing."""
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
    """One sentence on output that could not be written, and why; empty if there is none."""
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            if isinstance(file := _file_of(stream), _LossyFile) and file.error:
                return f"a part of {name} is lost ({file.error.strerror}); free space on that disk"
    return ""


def _file_of(stream: io.TextIOWrapper) -> Any:
    return getattr(stream.buffer, "raw", None)


def setup_logging(level: int = logging.INFO) -> None:
    """Log to stderr from this level on; a second call changes only the level."""
    root = logging.getLogger()
    if not root.handlers:
        screen = logging.StreamHandler()
        screen.setFormatter(_SafeFormatter("%(message)s"))
        root.addHandler(screen)
    root.setLevel(logging.INFO)
    for handler in root.handlers:
        handler.setLevel(level)


def log_file_formatter() -> logging.Formatter:
    """Format of log files: time, level, message without control characters."""
    return _SafeFormatter("%(asctime)s %(levelname)s %(message)s")


def show(*renderables: Any, min_width: int = 0) -> None:
    """Print rich's tables and texts, at least `min_width` columns wide, without markup and escape sequences."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    console = SafeConsole(markup=False, emoji=False)
    console.width = max(console.width, min_width)
    console.print(*renderables)


MAX_DIGITS = 9


def percent_text(percent: float, digits: int = 1) -> str:
    """A percentage without its sign: 100 only if exact, 0 only if exact, – if unknown (NaN).

    Args:
        percent: in [0, 100].
        digits: after the point; more are printed if the rounded number would read 0 or 100.
    """
    if math.isnan(percent):
        return "–"
    if math.isclose(percent, 100, abs_tol=10**-MAX_DIGITS):
        return "100"
    texts = (f"{percent:.{count}f}" for count in range(digits, MAX_DIGITS + 1))
    return next((text for text in texts if float(text) not in (0, 100)), f"{0:.{digits}f}")


def probability_text(probability: float) -> str:
    """A probability as a percentage with at least two digits."""
    percent = 100 * probability
    if percent == 0 or percent >= 9.95:
        return f"{percent_text(percent, 0)} %"
    return f"{percent:{'#.2g' if percent >= 0.01 else '.0e'}} %"
