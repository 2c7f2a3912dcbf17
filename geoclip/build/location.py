"""From the name of a checkpoint to its location encoder alone: for embedding, export and probe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from geoclip.build.model import model_from_checkpoint
from geoclip.build.published import read_published
from geoclip.config import LocationSourceConfig
from geoclip.model.from_release import location_encoder_of
from geoclip.model.hub import local_copy
from geoclip.model.releases import is_ours, is_release, read_release, release_name
from geoclip.run_dir import checkpoint_file, run_of


@dataclass(kw_only=True, slots=True)
class OpenedLocationEncoder:
    """A location encoder in evaluation mode on the CPU, and what results say of it."""

    encoder: nn.Module  # (N, 2) degrees -> (N, D), not normalised
    name: str
    folder: Path  # where results go
    sha256: str  # of the file of its weights


def open_location_encoder(source: LocationSourceConfig) -> OpenedLocationEncoder:
    """Load what `checkpoint` names: official or another release, latest, a run's folder, or a checkpoint.

    Raises:
        GeoclipError: a checkpoint or an asset that cannot be read; the message says what to do.
    """
    encoder: nn.Module
    path = Path(source.checkpoint)
    if is_release(source.checkpoint):
        place = local_copy(source.checkpoint)
        if place is not None and is_ours(place):
            encoder, weights = (
                read_published(place, backbone=None)[0].location_encoder,
                place / "model.safetensors",
            )
        else:
            release = read_release(place or source.checkpoint)
            encoder, weights = location_encoder_of(release), release.files[0]
        name = release_name(source.checkpoint)
        folder = path if path.is_dir() else Path(source.runs_dir) / name
    else:
        weights = checkpoint_file(source.checkpoint, source.runs_dir)
        model, _ = model_from_checkpoint(weights, needs_backbone=False)
        encoder = model.location_encoder
        folder = run_of(weights)
        name = folder.resolve().name
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return OpenedLocationEncoder(encoder=encoder.eval(), name=name, folder=folder, sha256=sha256)
