"""Logs of a run: rank 0 on the console, every rank in its own file in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geoclip.system.console import log_file_formatter, setup_logging


def setup_console(*, main: bool) -> None:
    """Log to the console: everything on rank 0, errors on the others."""
    setup_logging(logging.INFO if main else logging.ERROR)


@contextmanager
def log_to_file(run: Path, rank: int) -> Iterator[None]:
    """Append log messages to `logs/rank<rank>.log`, and the traceback of an error that leaves the block."""
    folder = run / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"rank{rank}.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(log_file_formatter())
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        record = logging.LogRecord("geoclip", logging.ERROR, "", 0, f"ended by {error!r}", None, None)
        record.exc_info = (type(error), error, error.__traceback__)
        handler.emit(record)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # of a full disk, which ends the run elsewhere
            handler.close()
