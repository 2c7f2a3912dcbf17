"""Metrics: metrics.jsonl is the truth, wandb a mirror.

wandb is spoken to from one daemon thread through a bounded queue: a run neither waits for it nor fails with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from types import TracebackType
from typing import Any

from geoclip.run_dir import write_text

log = logging.getLogger("geoclip")

Row = dict[str, Any]


class Recorder:
    """One row per call to metrics.jsonl, mirrored to wandb. Only rank 0 has one.

    Args:
        path: metrics.jsonl; rows beyond `step` are dropped, because a resumed run will write them again.
        step: the step that the run goes on from.
        mirror: where rows go as well; None for the file alone.
    """

    def __init__(self, path: Path, *, step: int = 0, mirror: WandbMirror | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_rows(path) if row["step"] <= step] if step else []
        kept = [
            row for row in kept if row["kind"] != "skipped"
        ]  # the account at a run's end is written again
        write_text(
            path, "".join(json.dumps(row) + "\n" for row in kept)
        )  # whole or as it was, if killed here
        self._file = path.open("a", encoding="utf-8")
        self._mirror = mirror

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._mirror:
            self._mirror.finish(1 if error else 0)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Write one row: `kind`, `step` and the values."""
        row = {"kind": kind, "step": step, **values}
        self._write(row)
        if self._mirror:
            self._mirror.send(lambda wandb, run: run.log(_flat(kind, values), step=step))

    def picture(self, name: str, path: Path) -> None:
        """Show a picture in wandb; the file itself is the record."""
        if self._mirror:
            self._mirror.send(lambda wandb, run: run.log({name: wandb.Image(str(path))}))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Show a table in wandb; the JSON of the evaluation is the record."""
        if self._mirror:
            self._mirror.send(lambda wandb, run: run.log({name: wandb.Table(columns=columns, data=rows)}))

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


class WandbMirror:
    """A wandb run, written to in the background.

    Args:
        folder: the run's folder; wandb's own files go below it.
        mode: `auto` (online when logged in), `online` or `offline`.
        patience_s: how long `finish` waits before it lets go.
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
        self._jobs: queue.Queue[Callable[[Any, Any], object] | None] = queue.Queue(maxsize=10_000)
        self._patience_s = patience_s
        self._exit_code = 0
        self._dropped = 0
        settings = {
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
        self._thread = threading.Thread(target=self._work, args=(mode, settings), daemon=True, name="wandb")
        self._thread.start()

    def send(self, job: Callable[[Any, Any], object]) -> None:
        """Have `job(wandb, run)` done some time; dropped, and counted, when wandb falls far behind or is gone."""
        if not self._thread.is_alive():
            self._dropped += 1
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._dropped += 1

    def finish(self, exit_code: int) -> None:
        """End the wandb run, but wait no longer than the patience allows."""
        self._exit_code = exit_code
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            log.warning(
                "wandb did not finish within %.0f s and is left behind; metrics.jsonl is complete",
                self._patience_s,
            )
        elif self._dropped:
            log.warning("wandb missed %d rows; metrics.jsonl is complete", self._dropped)

    def _work(self, mode: str, settings: dict[str, Any]) -> None:
        try:
            os.environ.setdefault("WANDB_SILENT", "true")
            import wandb

            online = mode == "online" or (mode == "auto" and _logged_in())
            run = wandb.init(
                mode="online" if online else "offline",
                settings=wandb.Settings(
                    silent=True, console="off", init_timeout=60, x_disable_stats=not online
                ),
                **settings,
            )
            while (job := self._jobs.get()) is not None:
                job(wandb, run)
            run.finish(exit_code=self._exit_code)
        except Exception as error:  # whatever wandb does, the run goes on
            log.warning(
                "wandb gave up (%s: %s); metrics.jsonl goes on",
                type(error).__name__,
                str(error).split("\n")[0],
            )


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
    mirror.send(
        lambda wandb, run: run.log(
            {"results": wandb.Table(columns=list(rows[0]), data=[list(row) for row in rows[1:]])}
            | {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
        )
    )
    mirror.finish(0)


def _logged_in() -> bool:
    """Whether an API key is at hand, where `wandb login` leaves it; asks neither network nor user."""
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
