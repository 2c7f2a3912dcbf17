"""Metrics: metrics.jsonl is the truth, wandb a mirror, written by a process of its own (`wandb_process`)."""

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
from netrc import NetrcParseError, netrc
from pathlib import Path
from types import TracebackType
from typing import Any

from geoclip.system.files import naming, write_text_atomic
from geoclip.system.processes import kill_with_descendants, stop_signals_blocked

log = logging.getLogger("geoclip")

Row = dict[str, Any]

UNSENT_BYTES = 64 << 20  # rows that wait for a wandb which does not take them; later ones are dropped


class Recorder:
    """One row per call to metrics.jsonl, mirrored to wandb. Only rank 0 has one.

    Args:
        path: metrics.jsonl; rows beyond `step` are dropped, because a resumed run will write them again.
        step: the step that the run resumes from.
        mirror: where rows go as well; None for the file alone.
    """

    def __init__(self, path: Path, *, step: int = 0, mirror: WandbMirror | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_rows(path) if row["step"] <= step] if step else []
        kept = [row for row in kept if row["kind"] != "skipped"]  # the account at a run's end is written again
        write_text_atomic(
            path, "".join(json.dumps(row) + "\n" for row in kept)
        )  # complete or as it was, if killed here
        self._file = path.open("a", encoding="utf-8")
        self._mirror = mirror

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # fails on a full disk
        finally:
            if self._mirror:
                self._mirror.finish(1 if error else 0)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Write one row: `kind`, `step` and the values."""
        row = {"kind": kind, "step": step, **values}
        self._write(row)
        if self._mirror:
            self._mirror.log(_flat(kind, values), step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Show a picture in wandb; the file itself is the record."""
        if self._mirror:
            self._mirror.picture(name, path, step)

    def table(self, name: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """Show a table in wandb; the JSON of the evaluation is the record."""
        if self._mirror:
            self._mirror.table(name, columns, rows, step)

    def _write(self, row: Row) -> None:
        with naming(Path(self._file.name)):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl up to the first that is none; of a killed run the last line is cut short."""
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


class WandbMirror:
    """A wandb run, written by a process of its own: whatever becomes of it, the run neither waits nor fails.

    Nothing here waits for that process but `finish`, and that not longer than the patience; what is still there then
    is killed, wandb's service included.

    Args:
        folder: the run's folder; wandb's own files go below it.
        mode: `auto` (online when logged in), `online` or `offline`.
        patience_s: how long `finish` waits before it gives up on wandb.
        group: the study that the run is part of.
        tags: by which runs are found, each at most 64 letters long.
        job_type: train, or what else this is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: str,
        project: str,
        entity: str | None,
        name: str,
        config: dict[str, Any],
        run_id: str,
        patience_s: float = 30.0,
        group: str | None = None,
        tags: Sequence[str] = (),
        job_type: str | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._unsent = bytearray()
        self._received = b""
        self._dropped = 0
        self._problem = ""
        self._told: dict[str, str] = {}
        online = mode == "online" or (mode == "auto" and _logged_in())
        self._folder, self._run_id = folder / "wandb", run_id
        self._folder.mkdir(parents=True, exist_ok=True)
        self._earlier = len(list(self._folder.glob(f"*run-*-{run_id}")))
        with (self._folder / "process.log").open("ab") as errors, stop_signals_blocked():  # tracebacks of wandb's
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from geoclip.runs.wandb_process import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        settings = {
            "mode": "online" if online else "offline",
            "dir": str(folder),
            "project": project,
            "entity": entity,
            "name": name,
            "config": config,
            "id": run_id,
            "resume": "allow",
            "group": group,
            "tags": list(tags),
            "job_type": job_type,
        }
        self._send({"init": settings, "patience_s": patience_s})

    def log(self, values: Row, step: int) -> None:
        """Have a row logged; dropped, and counted, when wandb falls far behind or is gone."""
        self._send({"log": values, "step": step})

    def picture(self, name: str, path: Path, step: int) -> None:
        """Have a picture's file logged."""
        self._send({"pictures": {name: str(path.resolve())}, "step": step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Have a table logged."""
        table = {"columns": list(columns), "data": [list(row) for row in rows]}
        self._send({"tables": {name: table}, "step": step})

    def finish(self, exit_code: int) -> None:
        """End the wandb run, but wait no longer than the patience allows."""
        self._send({"finish": exit_code})
        end_s = time.monotonic() + self._patience_s
        while not self._told.get("finished") and (left_s := end_s - time.monotonic()) > 0:
            select.select([self._out], [self._in] if self._unsent else [], [], min(left_s, 0.5))
            self._write()
            if not self._read():
                break
        if not self._told.get("finished"):
            gone = self._process.poll() is not None or not self._read()
            self._problem = self._problem or (
                "its process ended" if gone else f"it did not finish within {self._patience_s:g} s"
            )
        kill_with_descendants(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close() if pipe else None
        self._report()

    def _report(self) -> None:
        """One line: where wandb's record is, and, if it lacks something, why."""
        written = sorted(self._folder.glob(f"*run-*-{self._run_id}"))  # by their times
        folder = self._told.get("folder") or next((str(path) for path in written[self._earlier :][-1:]), "")
        upload = f"to upload it: wandb sync {folder}" if folder else "it wrote nothing"
        if self._dropped and not self._problem:
            self._problem = f"it missed {self._dropped} rows"
        if self._problem:
            log.warning("wandb's run is incomplete (%s), metrics.jsonl is complete; %s", self._problem, upload)
        elif url := self._told.get("url"):
            log.info("wandb: %s", url)
        else:
            log.info("wandb's offline run is complete; %s", upload)

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        if self._problem or len(self._unsent) + len(line) > UNSENT_BYTES:
            self._dropped += 1
            return
        self._unsent += line
        self._write()
        self._read()

    def _write(self) -> None:
        """As much as the pipe takes now."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._in, self._unsent[:65536])]
        except BlockingIOError:
            pass
        except OSError:  # the process is gone, and `_read` sees its last words
            self._unsent.clear()

    def _read(self) -> bool:
        """Take up what the process has reported; False once it is gone."""
        try:
            while received := os.read(self._out, 65536):
                *lines, self._received = (self._received + received).split(b"\n")
                for line in lines:
                    self._told |= json.loads(line)
            alive = False
        except BlockingIOError:
            alive = True
        if self._told.get("problem") and not self._problem:
            self._problem = self._told["problem"]
            log.warning("wandb failed (%s); the run continues, metrics.jsonl is complete", self._problem)
        return alive


def mirror_study(
    folder: Path,
    rows: Sequence[Sequence[Any]],
    figures: Sequence[Path],
    *,
    mode: str,
    project: str,
    entity: str | None,
    name: str,
    config: dict[str, Any],
    patience_s: float,
) -> None:
    """A study's table and figures as a wandb run of their own, in the group of its training runs.

    Args:
        folder: wandb's own files go below it.
        rows: of the table, the head first.
        figures: PNG files.
        mode: `auto` (online when logged in), `online` or `offline`.
        project: wandb's.
        entity: wandb's; None for the user's own.
        name: the study's.
        config: what was compared, and its setting.
        patience_s: how long wandb may take in the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mirror = WandbMirror(
        folder, mode=mode, project=project, entity=entity, name=f"study-{name}", config=config,
        run_id=f"study-{name}", patience_s=patience_s, group=name, tags=[name[:64]], job_type="study",
    )  # fmt: skip
    mirror.table("results", list(rows[0]), [list(row) for row in rows[1:]], 0)
    for path in figures:
        mirror.picture(f"figures/{path.stem}", path, 0)
    mirror.finish(0)


def _logged_in() -> bool:
    """Whether there is an API key, in the environment or where `wandb login` stores it."""
    try:
        return bool(os.environ.get("WANDB_API_KEY") or netrc().authenticators("api.wandb.ai"))
    except (OSError, NetrcParseError):
        return False


def _flat(kind: str, values: Row) -> Row:
    """One level: accuracy_percent {"25": 3} becomes val/accuracy_percent/25."""
    flat: Row = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(f"{kind}/{key}", value))
        else:
            flat[f"{kind}/{key}"] = value
    return flat
