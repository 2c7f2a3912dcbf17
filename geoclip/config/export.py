"""The location encoder as a file for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from geoclip.config.embed import LocationSourceConfig


class ExportFormat(Enum):
    safetensors = "safetensors"  # weights and config.json, in the authors' layout
    onnx = "onnx"
    torchscript = "torchscript"
    torch_export = "torch_export"


@dataclass(kw_only=True, slots=True)
class ExportConfig(LocationSourceConfig):
    """One export."""

    format: ExportFormat = ExportFormat.onnx
    output: str = MISSING  # a file; of safetensors a folder
    compare_on: str = ""  # CSV of places to compare on; empty: 1,000 of the sphere, poles included
    overwrite: bool = False  # what stands there
