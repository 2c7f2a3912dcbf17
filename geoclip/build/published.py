"""Models of ours by their configuration: runs, and the folders that they are published as."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from geoclip.build.model import build_model, config_of
from geoclip.config import GalleryConfig, GalleryKind, TrainConfig
from geoclip.errors import CheckpointError
from geoclip.model.from_release import OWN, model_of
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.hub import local_copy
from geoclip.model.releases import FORMAT_VERSION, OURS, is_ours, read_release, read_release_config
from geoclip.run_dir import checkpoint_file
from geoclip.training.checkpoint import Tree, read_checkpoint
from geoclip.training.state import BACKBONE, load_weights

LEFT_OUT = "left out"  # encoder.features of a model that is built without its backbone


def load(source: str | Path, *, backbone: str | None = OWN, **download: Any) -> GeoCLIP:
    """Any model that there is, in evaluation mode: what `GeoCLIP.from_pretrained` calls for runs and their like.

    Args:
        source: as there.
        backbone: as there; None leaves out one that is frozen. A trained one is in the weights.
        download: as there.

    Raises:
        AssetError: the source or its backbone is neither at hand nor reachable.
        CheckpointError: it is damaged, or of another architecture.
    """
    place = local_copy(source, **download)
    if place is None or not is_ours(place):
        return model_of(read_release(place or source), backbone, **download)
    if (place / "config.json").is_file():
        return read_published(place, backbone=backbone)[0]
    path = checkpoint_file(str(place))
    saved = read_checkpoint(path)
    return assembled(config_of(saved, path), saved, path, backbone)


def read_published(folder: Path, *, backbone: str | None = OWN) -> tuple[GeoCLIP, TrainConfig]:
    """The model in evaluation mode, and its configuration, whose gallery is the folder's own.

    Raises:
        CheckpointError: damaged, or written by another version, whose configuration this one does not know.
    """
    place = folder / "config.json"
    try:
        held = read_release_config(folder)
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        config = config_of(held, place)
        kind, version, gallery = held.get("model_type"), held.get("format_version"), held.get("gallery_file")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({' '.join(str(error).split())[:200]}); fetch it again, or take the version of "
            "geoclip that its README.md names"
        ) from error
    if (kind, version) != (OURS, FORMAT_VERSION):
        raise CheckpointError(
            f"{place}: model_type={kind!r} with format_version={version!r} is not {OURS!r} with {FORMAT_VERSION}"
        )
    if gallery is None and config.gallery.kind is GalleryKind.file:
        raise CheckpointError(
            f"{place}: gallery_file must name the CSV of the gallery {config.gallery.name!r}"
        )
    if gallery is not None:
        if Path(str(gallery)).name != gallery or not (folder / gallery).is_file():
            raise CheckpointError(f"{place}: gallery_file={gallery!r} must name a CSV beside it")
        config = replace(config, gallery=GalleryConfig(name=config.gallery.name, path=str(folder / gallery)))
    return assembled(config, {"model": tensors}, folder / "model.safetensors", backbone), config


def assembled(config: TrainConfig, saved: Tree, path: Path, backbone: str | None) -> GeoCLIP:
    """The model that a configuration describes, with these weights, in evaluation mode.

    Args:
        config: of the run.
        saved: its checkpoint; `model` is what is read of it.
        path: where that was, for messages.
        backbone: as in `load`.

    Raises:
        CheckpointError: of another architecture.
    """
    encoder = replace(config.encoder, features="")
    if backbone is None and encoder.frozen:
        encoder = replace(encoder, features=LEFT_OUT)
        kept = {name: one for name, one in saved["model"].items() if not name.startswith(BACKBONE)}
        saved = {**saved, "model": kept}
    elif backbone not in (None, OWN):
        encoder = replace(encoder, repo=backbone)
    # Its weights are at hand: what they once started from may be gone.
    model = build_model(replace(config, encoder=encoder, location=replace(config.location, init="")))
    load_weights(model, saved, path)
    return model.eval()
