"""A run's folder: its identity and its files.

runs/<name>-<hash of the science>/
  config.yaml provenance.json metrics.jsonl summary.json checkpoints/ eval/ figures/ predictions/ report.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from geoclip.errors import CheckpointError, DataError, GeoclipError
from geoclip.system.files import write_text_atomic

# What can change between two starts of one run: where, how fast and what is printed, never what is computed.
NOT_SCIENCE = ("name", "runs_dir", "check_only", "compute", "logger", "resume", "force_resume", "study")
PATHS = (
    ("data", "root"), ("encoder", "repo"), ("encoder", "features"), ("gallery", "path"), ("study", "galleries"),
)  # fmt: skip
NOT_SCIENCE_OF_DATA = ("root", "max_bad_fraction", "max_pixels")  # shards and gallery are in the hash by their content


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
    """The part of a (plain) configuration that decides a run's results, and fingerprints of the files it reads."""
    kept = {key: value for key, value in config.items() if key not in NOT_SCIENCE}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in NOT_SCIENCE_OF_DATA}
    kept["encoder"] = kept["encoder"] | {"features": bool(kept["encoder"]["features"])}
    kept["gallery"] = {}
    return kept | {"files": files}


def differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested dicts, as `key: saved -> wanted`."""
    found = []
    for key in sorted(saved.keys() | wanted.keys()):
        one, other = saved.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one} -> {other}")
    return found


def fingerprint_of(value: Any) -> str:
    """Eight hex digits that name a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def run_path(config: dict[str, Any], files: dict[str, str]) -> Path:
    """`runs/<name>-<hash>`: the same science gives the same folder, another science never does."""
    return Path(config["runs_dir"]) / f"{config['name']}-{fingerprint_of(config_for_hash(config, files))}"


def latest_run(runs_dir: str | Path = "runs") -> Path:
    """The run whose checkpoint is the newest.

    Raises:
        CheckpointError: there is none; the message names the command that trains one.
    """
    found = Path(runs_dir).glob("*/checkpoints/step-*.safetensors")
    checkpoints = sorted(found, key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise CheckpointError(f"no trained run in {Path(runs_dir).resolve()}; train one: python -m geoclip.train")
    return checkpoints[-1].parent.parent


def checkpoint_file(checkpoint: str, runs_dir: str = "runs", *, best: bool = True) -> Path:
    """The file of a run's folder (its best, else its newest), of `latest`, or the file itself.

    Args:
        checkpoint: a run's folder, a file, or `latest`.
        runs_dir: where `latest` is looked for.
        best: take the best weights if there are any; otherwise the newest state to resume from.

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
    """The folder of the run that a checkpoint's file belongs to."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def origins(run: Path, config: Mapping[str, Any], cwd: str = "") -> list[Path]:
    """The folders that a run's relative paths may be relative to, the likeliest first.

    Args:
        run: its folder; where runs_dir was relative, it shows where the run was started, even after both have moved.
        config: its plain configuration.
        cwd: where it was started, if that is known; empty: see its provenance.json.
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
    """A run's plain configuration with its relative paths as absolute ones, where they lead to something.

    A run keeps paths as they were given, because they are part of its identity; whoever reads them calls this.
    Arguments as of `origins`.
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
    """A relative path below the first of the folders that has it, as an absolute one; any other as it is."""
    if not path or "://" in path or os.path.isabs(path):
        return path
    return next((str(folder / path) for folder in folders if (folder / path).exists()), path)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a complete JSON file or none; without an indent it takes a third of the size."""
    write_text_atomic(path, json.dumps(value, indent=indent) + "\n")


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """While inside, a result that was already printed is written.

    Raises:
        GeoclipError: it cannot be; the message names the file.
    """
    try:
        yield
    except OSError as error:
        raise GeoclipError(
            f"{path} cannot be written ({error.strerror or error}): the result above is complete, but not saved; make "
            "that folder writable, or copy the run to one that is"
        ) from error


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """While inside, no other process on this file system trains in this folder.

    Raises:
        CheckpointError: one does.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise CheckpointError(
            f"another process trains in {run}; wait for it, or give this run another name=…"
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_identity(run: Path, config: dict[str, Any], world_size: int, choices: Mapping[str, str]) -> None:
    """config.yaml and provenance.json of a run that starts or resumes; `choices` are its option of each group."""
    write_text_atomic(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(run / "provenance.json", {**provenance(world_size), "choices": dict(choices)})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file contains something else; the message names it.
        FileNotFoundError: it does not exist.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} must hold a JSON object, not a {type(found).__name__}")
    return found


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them can expand to more values than fit into memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it has an alias (*), which no run writes")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping of plain values, such as a run's config.yaml, which may come from anybody.

    Raises:
        DataError: it is something else; the message names the file.
        FileNotFoundError: it does not exist.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} must hold keys with values, not a {type(found).__name__}")
    return found


def read_provenance(run: Path) -> dict[str, Any]:
    """The command and the git revision that a run was last started by."""
    found: dict[str, Any] = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("command", "git_revision")}


def write_summary(run: Path, **facts: Any) -> None:
    """summary.json: there is one where training has come to its end."""
    write_json(run / "summary.json", facts)


def is_finished(run: Path) -> bool:
    """Whether training has come to its end."""
    return (run / "summary.json").is_file()


def read_summary(run: Path) -> dict[str, Any]:
    """step, samples_seen, geoscore and files of a finished run."""
    return read_json(run / "summary.json")


def git_revision() -> str:
    """Commit of this package's checkout, `-dirty` where code or configs differ from it; `unknown` outside of git."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here.parent)]
    try:
        # an installed wheel may be inside another repository
        _run([*git, "ls-files", "--error-unmatch", __file__])
        named = [*git, "rev-parse", "--short=12", "HEAD"]
        head = _run(named)
        changed = [*git, *f"diff --quiet HEAD -- {here.name} conf".split()]  # not what a study writes
        is_dirty = _run(changed, check=False).returncode != 0
        return head.stdout.strip() + "-dirty" * is_dirty
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without input, for at most 20 s."""
    return subprocess.run(command, capture_output=True, text=True, check=check, stdin=subprocess.DEVNULL, timeout=20)


def provenance(world_size: int = 1) -> dict[str, Any]:
    """What a result depends on beside the configuration: revision, versions, machine, command."""
    import torch

    versions = {}
    for package in ("torch", "transformers", "webdataset", "hydra-core", "omegaconf", "numpy", "pillow", "wandb"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "cwd": str(Path.cwd()),
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "gpu": gpu,
            "world_size": world_size,
        },
    }


def _processor() -> str:
    """The processor's model name, which `platform` does not tell on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
