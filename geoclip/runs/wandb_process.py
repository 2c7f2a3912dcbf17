"""The process that writes a wandb run: `metrics.WandbRun` starts it, sends it messages and ends it.

It reads one JSON object per line: `init` with the arguments of `wandb.init`, then `log`, `pictures` and `tables` with
their `step`, then `finish` with an exit code. If that is missing, the training run was killed. Its reports
are JSON objects, one per line: `folder` and `url`, `problem`, `finished`.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from geoclip.system.processes import kill_with_descendants

Message = dict[str, Any]

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 1 << 15  # bytes, see LevelDB's doc/log_format.md
COMPLETE, LAST = 1, 4  # kinds of a record's parts


def main() -> None:
    """Serve one run, then end without wandb's exit handler, which can hang."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of wandb and its service goes to the log file

    def report(**values: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the training run was killed; wandb's run is still finished
            reports.write(json.dumps(values) + "\n")
            reports.flush()

    messages: SimpleQueue[Message] = SimpleQueue()
    begin = json.loads(sys.stdin.readline())
    reader = threading.Thread(target=_read, args=(messages, begin["patience_s"]), daemon=True)
    reader.start()
    try:
        _serve(begin["init"], messages, report)
    except Exception as error:
        traceback.print_exc()
        report(problem=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    finally:
        sys.stderr.flush()
        kill_with_descendants(os.getpid())


def _read(messages: SimpleQueue[Message], patience_s: float) -> None:
    """Queue messages; after the last one, this process is killed when `patience_s` has passed."""
    for line in sys.stdin:
        message = json.loads(line)
        messages.put(message)
        if "finish" in message:
            break
    else:
        messages.put({"finish": 1})
    timer = threading.Timer(patience_s + 2, kill_with_descendants, [os.getpid()])
    timer.daemon = True
    timer.start()


def _serve(settings: dict[str, Any], messages: SimpleQueue[Message], report: Any) -> None:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    online = settings["mode"] == "online"
    run = wandb.init(
        settings=wandb.Settings(
            silent=True, console="off", init_timeout=60, disable_git=True, x_disable_stats=not online
        ),
        **settings,
    )
    report(folder=os.path.dirname(run.dir), **({"url": run.url} if online else {}))
    while "finish" not in (message := messages.get()):
        values = message.get("log", {})
        values |= {name: wandb.Image(path) for name, path in message.get("pictures", {}).items()}
        values |= {name: wandb.Table(**table) for name, table in message.get("tables", {}).items()}
        run.log(values, step=message["step"])
    run.finish(exit_code=message["finish"])
    wandb.teardown()  # its service has written everything and ended
    (file,) = Path(run.dir).parent.glob("*.wandb")
    if not any(record.HasField("exit") for record in records(file)):
        report(problem=f"{file.name} ends too early; is the disk full?")
    report(finished=True)


def records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: protocol buffers in a log of LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, at, parts = path.read_bytes(), FILE_HEADER, b""
    while at + RECORD_HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < RECORD_HEADER:
            at += left  # no record begins there
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + RECORD_HEADER])
        at += RECORD_HEADER
        if at + size > len(data):
            return
        parts += data[at : at + size]
        at += size
        if kind in (COMPLETE, LAST):
            yield Record.FromString(parts)
            parts = b""
