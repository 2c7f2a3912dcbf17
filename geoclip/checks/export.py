"""Why a location encoder cannot be exported."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from geoclip.checks.embed import location_source_problems
from geoclip.config import ExportConfig, ExportFormat

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # to write it, to translate into it, to compare


def export_problems(config: ExportConfig) -> list[str]:
    """Every reason why this export cannot be made, each with its cure."""
    problems = location_source_problems(config)
    absent = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if config.format is ExportFormat.onnx and absent:
        problems.append(
            f"format=onnx needs {', '.join(absent)}, not installed: pip install -c constraints.txt -e '.[export]'"
        )
    problems += _output_problems(config, Path(config.output))
    if config.compare_on and not os.path.isfile(config.compare_on):
        problems.append(
            f"compare_on={config.compare_on} must be a CSV with columns for latitude and longitude"
        )
    return problems


def _output_problems(config: ExportConfig, output: Path) -> list[str]:
    if config.format is ExportFormat.safetensors:
        if output.is_file():
            return [f"output={output} is a file; format=safetensors writes a folder"]
        standing = output / "config.json"
    else:
        if output.is_dir():
            return [f"output={output} is a folder; format={config.format.value} writes a file"]
        if config.format is ExportFormat.torch_export and output.suffix != ".pt2":
            return [f"output={output} must end in .pt2, by which torch.export.load knows its files"]
        standing = output
    return (
        [f"output={standing} exists; overwrite=true replaces it"]
        if standing.exists() and not config.overwrite
        else []
    )
