"""A run's folder: its identity, its files, its logs.

runs/<name>-<hash of the configuration>/
  config.yaml provenance.json metrics.jsonl summary.json checkpoints/ eval/ figures/ logs/ predictions/ report.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from geoclip.errors import CheckpointError, DataError, GeoclipError
from geoclip.system.console import log_file_formatter, setup_logging
from geoclip.system.files import write_text_atomic
from geoclip.system.processes import locked_or

# These may change between two starts of one run: they decide paths, speed and output, not results.
NOT_HASHED = ("name", "runs_dir", "check_only", "compute", "logger", "resume", "force_resume", "study")
NOT_HASHED_OF_DATA = ("root", "max_bad_fraction", "max_pixels")  # shards and gallery are hashed by content
PATHS = (
    ("data", "root"), ("encoder", "repo"), ("encoder", "features"), ("gallery", "path"), ("study", "galleries"),
)  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dicts, lists, numbers and strings; enums by their values."""

    def convert(value: Any) -> Any:
        match value:
            case Enum():
                return value.value
            case dict():
                return {key: convert(item) for key, item in value.items()}
            case list() | tuple():
                return [convert(item) for item in value]
            case _:
                return value

    converted: dict[str, Any] = convert(dataclasses.asdict(config))
    return converted


def config_for_hash(config: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """The keys of a plain configuration that affect a run's results, and the fingerprints of its input files."""
    kept = {key: value for key, value in config.items() if key not in NOT_HASHED}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in NOT_HASHED_OF_DATA}
    kept["encoder"] = kept["encoder"] | {"features": bool(kept["encoder"]["features"])}
    kept["gallery"] = {}
    return kept | {"files": files}


def differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """Differences between two nested dicts, as `key: saved -> wanted`."""
    found = []
    for key in sorted(saved.keys() | wanted.keys()):
        one, other = saved.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one} -> {other}")
    return found


def fingerprint_of(value: Any) -> str:
    """Eight hex digits of the SHA-256 of a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def run_path(config: dict[str, Any], files: dict[str, str]) -> Path:
    """`runs/<name>-<hash of config_for_hash>`: two runs share a folder only if they compute the same."""
    return Path(config["runs_dir"]) / f"{config['name']}-{fingerprint_of(config_for_hash(config, files))}"


def latest_run(runs_dir: str | Path = "runs") -> Path:
    """The run with the newest checkpoint.

    Raises:
        CheckpointError: there is none; the message names the command that trains one.
    """
    checkpoints = Path(runs_dir).glob("*/checkpoints/step-*.safetensors")
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise CheckpointError(f"no trained run in {Path(runs_dir).resolve()}; train one: python -m geoclip.train")
    return run_of(newest)


def checkpoint_file(checkpoint: str, runs_dir: str = "runs", *, best: bool = True) -> Path:
    """The file that `checkpoint` (a file, a run's folder, or `latest` in `runs_dir`) means.

    For a run, it is best.safetensors if that exists and `best` is set; otherwise the newest checkpoint to resume from.

    Raises:
        CheckpointError: there is none.
    """
    path = latest_run(runs_dir) if checkpoint == "latest" else Path(checkpoint)
    if path.is_file():
        return path
    folder = path / "checkpoints"
    if best and (folder / "best.safetensors").is_file():
        return folder / "best.safetensors"
    steps = sorted(folder.glob("step-*.safetensors"))
    if not steps:
        raise CheckpointError(f"{path} has no checkpoints/*.safetensors; train first: python -m geoclip.train")
    return steps[-1]


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint file belongs to."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def origins(run: Path, config: Mapping[str, Any], cwd: str = "") -> list[Path]:
    """The folders that a run's relative paths may be relative to, the most likely first.

    Args:
        run: its folder; a relative runs_dir shows where the run was started, even after both were moved.
        config: its plain configuration.
        cwd: where it was started; empty: read from its provenance.json.
    """
    run, runs_dir = Path(os.path.abspath(run)), Path(os.path.normpath(config.get("runs_dir", "runs")))
    found = []
    if not runs_dir.is_absolute() and run.parent.parts[-len(runs_dir.parts) or len(run.parts) :] == runs_dir.parts:
        found.append(run.parents[len(runs_dir.parts)])
    if not cwd:
        with suppress(OSError, ValueError, KeyError, TypeError):
            cwd = str(json.loads((run / "provenance.json").read_text(encoding="utf-8"))["cwd"])
    return [*found, *([Path(cwd)] if cwd else []), Path.cwd()]


def located(config: Mapping[str, Any], run: Path, cwd: str = "") -> dict[str, Any]:
    """A run's plain configuration, with relative paths made absolute if they exist. Arguments: see `origins`.

    A run's config.yaml keeps paths as they were typed, because they are part of its identity.
    """
    folders = origins(run, config, cwd)
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for group, key in PATHS:
        value = found.get(group, {}).get(key)
        if isinstance(value, list):
            found[group][key] = [first_existing(str(one), folders) for one in value]
        elif value:
            found[group][key] = first_existing(str(value), folders)
    return found


def first_existing(path: str, folders: Sequence[Path]) -> str:
    """A relative path, made absolute below the first folder in which it exists; other paths are unchanged."""
    if not path or "://" in path or os.path.isabs(path):
        return path
    return next((str(folder / path) for folder in folders if (folder / path).exists()), path)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically."""
    write_text_atomic(path, json.dumps(value, indent=indent) + "\n")


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Context in which a result is written that was already printed.

    Raises:
        GeoclipError: an OSError occurred inside; the message names the file.
    """
    try:
        yield
    except OSError as error:
        raise GeoclipError(
            f"{path} cannot be written ({error.strerror or error}): the result above is complete, but not saved; make "
            "that folder writable, or copy the run to a writable one"
        ) from error


def claimed(run: Path) -> AbstractContextManager[None]:
    """Keep other processes on this file system from training in this folder.

    Raises:
        CheckpointError: another process trains in it.
    """
    refusal = CheckpointError(f"another process trains in {run}; wait for it, or give this run another name=…")
    return locked_or(refusal, run / ".lock")


def write_identity(run: Path, config: dict[str, Any], world_size: int, choices: Mapping[str, str]) -> None:
    """Write config.yaml and provenance.json of a run that starts or resumes; `choices`: the option of each group."""
    write_text_atomic(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(run / "provenance.json", {**provenance(world_size), "choices": dict(choices)})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file contains something else.
        FileNotFoundError: it does not exist.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} must contain a JSON object, not a {type(found).__name__}")
    return found


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them can expand to more values than memory can store."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it has an alias (*), which is not allowed")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping of plain values from an untrusted file, such as a run's config.yaml.

    Raises:
        DataError: it contains something else.
        FileNotFoundError: it does not exist.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} must contain keys with values, not a {type(found).__name__}")
    return found


def read_provenance(run: Path) -> dict[str, Any]:
    """The command and the git revision of a run's last start."""
    found: dict[str, Any] = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("command", "git_revision")}


def write_summary(run: Path, **facts: Any) -> None:
    """Write summary.json, which marks a run as finished."""
    write_json(run / "summary.json", facts)


def is_finished(run: Path) -> bool:
    """Whether training has finished."""
    return (run / "summary.json").is_file()


def read_summary(run: Path) -> dict[str, Any]:
    """The summary of a finished run: step, samples_seen, geoscore and files."""
    return read_json(run / "summary.json")


def git_revision() -> str:
    """Commit of this package's checkout, with `-dirty` if code or configs differ; `unknown` outside of git."""
    package = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(package.parent)]
    try:
        _run([*git, "ls-files", "--error-unmatch", __file__])  # an installed wheel may be inside another repository
        head = _run([*git, "rev-parse", "--short=12", "HEAD"])
        changed = [*git, "diff", "--quiet", "HEAD", "--", package.name, "conf"]  # results of studies do not count
        is_dirty = _run(changed, check=False).returncode != 0
        return head.stdout.strip() + "-dirty" * is_dirty
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without input, for at most 20 s."""
    return subprocess.run(command, capture_output=True, text=True, check=check, stdin=subprocess.DEVNULL, timeout=20)


def provenance(world_size: int = 1) -> dict[str, Any]:
    """Revision, versions, machine and command: the facts besides the configuration that affect a result."""
    import torch

    packages = ("torch", "transformers", "webdataset", "hydra-core", "omegaconf", "numpy", "pillow", "wandb")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "cwd": str(Path.cwd()),
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in packages},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "gpu": gpu,
            "world_size": world_size,
        },
    }


def _processor() -> str:
    """The processor's model name, which `platform` does not return on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
