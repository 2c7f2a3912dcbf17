"""Why coordinates cannot be embedded."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from geoclip.config import EmbedConfig, LocationSourceConfig

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")


def embed_problems(config: EmbedConfig) -> list[str]:
    """Every reason why this table cannot be embedded, each with its cure."""
    problems = location_source_problems(config)
    if not os.path.isfile(config.input):
        problems.append(f"input={config.input} must be a CSV with columns for latitude and longitude")
    else:
        problems += _output_problems(config)
    if config.batch_size < 1:
        problems.append(f"batch_size={config.batch_size} must be 1 or more")
    return problems


def embed_output(config: EmbedConfig) -> Path:
    """The file to write."""
    return Path(config.output) if config.output else Path(config.input).with_suffix(".npz")


def _output_problems(config: EmbedConfig) -> list[str]:
    output = embed_output(config)
    if output.suffix.lower() not in SUFFIXES:
        return [f"output={output} must end in one of {', '.join(SUFFIXES)}"]
    if output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        return [
            f"output={output} needs pyarrow, which is not installed: pip install pyarrow, or write a .npz"
        ]
    if output.is_dir():
        return [f"output={output} is a folder; name a file in it"]
    if output.exists() and output.samefile(config.input):
        return [f"output={output} is the input itself; name another file"]
    if output.exists() and not config.overwrite:
        return [f"output={output} exists; overwrite=true replaces it"]
    return []


def location_source_problems(config: LocationSourceConfig) -> list[str]:
    """Why there is no location encoder of that name."""
    known = config.checkpoint in ("official", "latest") or config.checkpoint.startswith("hf-hub:")
    if known or os.path.exists(config.checkpoint):
        return []
    return [
        f"checkpoint={config.checkpoint} is neither a run's folder, a checkpoint nor an exported folder; `official` is "
        f"the released encoder, `latest` the newest run in {config.runs_dir}/, `hf-hub:OWNER/NAME` one on the Hub"
    ]
