"""A run's folder: its identity, what it is made of, and whole-or-absent writing.

runs/<name>-<hash of the science>/
  config.yaml provenance.json metrics.jsonl checkpoints/ eval/ figures/ predictions/ report.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from geoclip.errors import CheckpointError

# What can change between two starts of one run: where, how fast and what is printed, never what is computed.
NOT_SCIENCE = ("name", "runs_dir", "check_only", "compute", "logger")
NOT_SCIENCE_OF_DATA = ("root", "max_bad_fraction")  # shards and gallery are in the hash by their content


def plain(config: Any) -> dict[str, Any]:
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


def science(config: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """The part of a (plain) configuration that decides a run's results, and fingerprints of the files it reads."""
    kept = {key: value for key, value in config.items() if key not in NOT_SCIENCE}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in NOT_SCIENCE_OF_DATA}
    kept["encoder"] = kept["encoder"] | {"features": bool(kept["encoder"]["features"])}
    kept["gallery"] = {}
    return kept | {"files": files}


def fingerprint_of(value: Any) -> str:
    """Eight hex digits that name a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def run_path(config: dict[str, Any], files: dict[str, str]) -> Path:
    """`runs/<name>-<hash>`: the same science gives the same folder, another science never does."""
    return Path(config["runs_dir"]) / f"{config['name']}-{fingerprint_of(science(config, files))}"


def latest_run(runs_dir: str | Path = "runs") -> Path:
    """The run whose checkpoint is the newest.

    Raises:
        CheckpointError: there is none; the message names the command that trains one.
    """
    checkpoints = sorted(Path(runs_dir).glob("*/checkpoints/last.pt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise CheckpointError(
            f"no trained run in {Path(runs_dir).resolve()}; train one: python -m geoclip.train"
        )
    return checkpoints[-1].parent.parent


def checkpoint_file(checkpoint: str, runs_dir: str = "runs") -> Path:
    """The .pt file of a run's folder (its best, else its last), of `latest`, or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    path = latest_run(runs_dir) if checkpoint == "latest" else Path(checkpoint)
    if path.is_file():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise CheckpointError(
        f"{path} holds no checkpoints/best.pt or last.pt; train first: python -m geoclip.train"
    )


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or absent, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of readable JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_identity(run: Path, config: dict[str, Any], world_size: int) -> None:
    """config.yaml and provenance.json of a run that starts or goes on."""
    write_text(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(run / "provenance.json", provenance(world_size))


def git_revision() -> str:
    """Commit of the checkout this package runs from, `-dirty` when it is changed; `unknown` outside of git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__]
        subprocess.run(
            tracked, capture_output=True, check=True
        )  # an installed wheel may lie inside another repository
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance(world_size: int = 1) -> dict[str, Any]:
    """What a result depends on beside the configuration: revision, versions, machine, command."""
    import torch

    versions = {}
    for package in (
        "torch",
        "transformers",
        "webdataset",
        "hydra-core",
        "omegaconf",
        "numpy",
        "pillow",
        "wandb",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
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
