"""What a run says: rank 0 on the screen, every rank in a file of its own below the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geoclip.system.console import log_file_formatter, setup_logging


def setup_console(*, main: bool) -> None:
    """Messages on the screen: all of rank 0's, of the others only what goes wrong."""
    setup_logging(logging.INFO if main else logging.ERROR)


@contextmanager
def log_to_file(run: Path, rank: int) -> Iterator[None]:
    """While inside, whatever is logged also goes to `logs/rank<rank>.log`, after what earlier starts wrote."""
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
        handler.emit(record)  # with its traceback; the screen shows a sentence
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # a full disk, which ends the run by what it cannot write elsewhere
            handler.close()
