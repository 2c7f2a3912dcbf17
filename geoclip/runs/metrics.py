"""Metrics: metrics.jsonl is the record; wandb gets a copy from a separate process (`wandb_process`)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from types import TracebackType
from typing import Any

from geoclip.system.files import naming_errors, write_text_atomic
from geoclip.system.processes import kill_with_descendants, stop_signals_blocked

log = logging.getLogger("geoclip")

Row = dict[str, Any]

MAX_UNSENT_BYTES = 64 << 20  # of rows that wandb has not taken; later rows are dropped


class Recorder:
    """Appends rows to metrics.jsonl and sends them to wandb, if there is a wandb run. Only rank 0 has a recorder.

    Rows after `step`, from which the run resumes, are dropped: the run writes them again.
    """

    def __init__(self, path: Path, *, step: int = 0, wandb: WandbRun | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_rows(path) if step else []
        kept = [row for row in rows if row["step"] <= step and row["kind"] != "skipped"]  # written at a run's end
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        self._wandb = wandb

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # fails on a full disk
        finally:
            if self._wandb:
                self._wandb.finish(1 if error else 0)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Write one row: `kind`, `step` and the values."""
        with naming_errors(Path(self._file.name)):
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        if self._wandb:
            self._wandb.log(_flat(kind, values), step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Send an image file to wandb."""
        if self._wandb:
            self._wandb.picture(name, path, step)

    def table(self, name: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """Send a table to wandb."""
        if self._wandb:
            self._wandb.table(name, columns, rows, step)


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, up to the first invalid line: a killed run may end in the middle of one."""
    rows: list[Row] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not (isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step"), int)):
                break
            rows.append(row)
    return rows


@dataclass(slots=True)
class WandbRun:
    """A wandb run, written by a separate process, so that wandb can neither delay nor fail the training run.

    Only `finish` waits for that process, for at most `patience_s`; then the process and wandb's service are killed.
    """

    folder: Path  # of the run; wandb's own files go below it
    _: KW_ONLY
    mode: str  # online, offline, or auto: online if logged in
    project: str
    entity: str | None
    name: str
    config: dict[str, Any]
    run_id: str
    patience_s: float = 30.0
    group: str | None = None  # the study that the run is part of
    tags: Sequence[str] = ()  # each at most 64 characters long
    job_type: str | None = None
    _process: subprocess.Popen[bytes] = field(init=False)
    _in: int = field(init=False)
    _out: int = field(init=False)
    _earlier: int = field(init=False)  # folders that earlier starts of this run wrote
    _unsent: bytearray = field(init=False, default_factory=bytearray)
    _received: bytes = field(init=False, default=b"")
    _dropped: int = field(init=False, default=0)
    _problem: str = field(init=False, default="")
    _reports: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "wandb").mkdir(parents=True, exist_ok=True)
        self._earlier = len(self._written())
        log_file = self.folder / "wandb" / "process.log"  # wandb's tracebacks
        with log_file.open("ab") as errors, stop_signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from geoclip.runs.wandb_process import main; main()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        online = self.mode == "online" or (self.mode == "auto" and _logged_in())
        settings = {
            "mode": "online" if online else "offline",
            "dir": str(self.folder),
            "id": self.run_id,
            "resume": "allow",
            "tags": list(self.tags),
        } | {key: getattr(self, key) for key in ("project", "entity", "name", "config", "group", "job_type")}
        self._send({"init": settings, "patience_s": self.patience_s})

    def log(self, values: Row, step: int) -> None:
        """Log a row; it is dropped and counted if wandb is far behind or has ended."""
        self._send({"log": values, "step": step})

    def picture(self, name: str, path: Path, step: int) -> None:
        """Log an image file."""
        self._send({"pictures": {name: str(path.resolve())}, "step": step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""
        table = {"columns": list(columns), "data": [list(row) for row in rows]}
        self._send({"tables": {name: table}, "step": step})

    def finish(self, exit_code: int) -> None:
        """End the wandb run, waiting for at most `patience_s`."""
        self._send({"finish": exit_code})
        end_s = time.monotonic() + self.patience_s
        while not self._reports.get("finished") and (left_s := end_s - time.monotonic()) > 0:
            select.select([self._out], [self._in] if self._unsent else [], [], min(left_s, 0.5))
            self._write()
            if not self._read():
                break
        if not self._reports.get("finished"):
            gone = self._process.poll() is not None or not self._read()
            self._problem = self._problem or (
                "its process ended" if gone else f"it did not finish within {self.patience_s:g} s"
            )
        kill_with_descendants(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close() if pipe else None
        self._report()

    def _report(self) -> None:
        """Log where wandb's files are and, if they are incomplete, why."""
        folder = self._reports.get("folder") or next(map(str, self._written()[self._earlier :][-1:]), "")
        upload = f"to upload it: wandb sync {folder}" if folder else "it wrote nothing"
        if self._dropped and not self._problem:
            self._problem = f"it missed {self._dropped} rows"
        if self._problem:
            log.warning("wandb's run is incomplete (%s), metrics.jsonl is complete; %s", self._problem, upload)
        elif url := self._reports.get("url"):
            log.info("wandb: %s", url)
        else:
            log.info("wandb's offline run is complete; %s", upload)

    def _written(self) -> list[Path]:
        """The folders of all starts of this run, in order."""
        return sorted((self.folder / "wandb").glob(f"*run-*-{self.run_id}"))

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        if self._problem or len(self._unsent) + len(line) > MAX_UNSENT_BYTES:
            self._dropped += 1
            return
        self._unsent += line
        self._write()
        self._read()

    def _write(self) -> None:
        """Write as much as the pipe accepts now."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._in, self._unsent[:65536])]
        except BlockingIOError:
            pass
        except OSError:  # the process has ended; `_read` gets its last reports
            self._unsent.clear()

    def _read(self) -> bool:
        """Take in reports of the process; returns whether it is alive."""
        try:
            while received := os.read(self._out, 65536):
                *lines, self._received = (self._received + received).split(b"\n")
                for line in lines:
                    self._reports |= json.loads(line)
            alive = False
        except BlockingIOError:
            alive = True
        if self._reports.get("problem") and not self._problem:
            self._problem = self._reports["problem"]
            log.warning("wandb failed (%s); the run continues, metrics.jsonl is complete", self._problem)
        return alive


def log_study(
    folder: Path, rows: Sequence[Sequence[Any]], figures: Sequence[Path], *, name: str, **settings: Any
) -> None:
    """Send a study's table (header first) and figures (PNG) as one wandb run, in the group of its training runs."""
    wandb = WandbRun(
        folder, name=f"study-{name}", run_id=f"study-{name}", group=name, tags=[name[:64]], job_type="study", **settings
    )
    wandb.table("results", list(rows[0]), [list(row) for row in rows[1:]], 0)
    for path in figures:
        wandb.picture(f"figures/{path.stem}", path, 0)
    wandb.finish(0)


def _logged_in() -> bool:
    """Whether there is an API key, in the environment or where `wandb login` stores it."""
    try:
        return bool(os.environ.get("WANDB_API_KEY") or netrc().authenticators("api.wandb.ai"))
    except (OSError, NetrcParseError):
        return False


def _flat(kind: str, values: Row) -> Row:
    """Nested keys joined by slashes: accuracy_percent {"25": 3} becomes val/accuracy_percent/25."""
    flat: Row = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(f"{kind}/{key}", value))
        else:
            flat[f"{kind}/{key}"] = value
    return flat
