"""Modules from a release's weights, as large as its tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from geoclip.errors import CheckpointError
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.hub import BACKBONE, fetch
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.release_names import LOCATION, OUR_MLP, authors_name
from geoclip.model.releases import Release

OWN = "own"  # the backbone that a release names


def model_of(release: Release, backbone: str | None, **download: Any) -> GeoCLIP:
    """The model in evaluation mode.

    Args:
        release: its weights.
        backbone: CLIP as a Hub id or a local folder; `own`: what the release names; None: the model is without one.
        download: for a backbone that the release names with a revision.

    Raises:
        AssetError: the backbone is neither a local folder nor reachable.
        CheckpointError: the release has a location encoder alone, or its tensors do not fit together.
    """
    first, last = release.tensors.get(f"{OUR_MLP}0.weight"), release.tensors.get(f"{OUR_MLP}2.weight")
    if first is None or last is None:
        raise CheckpointError(
            f"{release.files[0]} has a location encoder alone; read it with geoclip.load_location_encoder"
        )
    if backbone == OWN:
        backbone = _own_backbone(release, download)
    clip = ClipBackbone.from_pretrained(backbone) if backbone else None
    if clip is not None and clip.feature_dim != first.shape[1]:
        raise CheckpointError(
            f"{release.files[0]} takes {first.shape[1]} features, but the backbone {backbone} gives "
            f"{clip.feature_dim}; name the one that it was trained on"
        )
    image_encoder = ImageEncoder(
        clip, feature_dim=first.shape[1], hidden_dim=first.shape[0], embedding_dim=last.shape[0], frozen=True
    )
    model = GeoCLIP(image_encoder, location_encoder_of(release))
    own = {name: one for name, one in release.tensors.items() if not name.startswith(LOCATION)}
    _fill(model, own, {"logit_scale", *(OUR_MLP + name for name in image_encoder.head.state_dict())}, release)
    return model.eval()


def location_encoder_of(release: Release) -> LocationEncoder:
    """The location encoder in evaluation mode, as large as its tensors are.

    Raises:
        CheckpointError: tensors are missing, or do not fit together.
    """
    tensors = {name.removeprefix(LOCATION): one for name, one in release.tensors.items() if name.startswith(LOCATION)}
    frequencies, head = tensors.get("branches.0.freq_KA"), tensors.get("branches.0.head.weight")
    if frequencies is None or head is None:
        raise CheckpointError(f"{release.files[0]} has no location encoder of GeoCLIP")
    branches = {name.split(".")[1] for name in tensors}
    if len(branches) != len(release.sigmas):
        raise CheckpointError(
            f"{release.files[0]} has {len(branches)} scales, but its sigma is {release.sigmas}: one number for each"
        )
    depth = sum(name.startswith("branches.0.mlp.") and name.endswith("weight") for name in tensors)
    encoder = LocationEncoder(
        release.sigmas,
        frequencies=frequencies.shape[0],
        hidden_dim=head.shape[1],
        depth=depth,
        embedding_dim=head.shape[0],
    )
    _fill(encoder, tensors, set(encoder.state_dict()), release, LOCATION)
    return encoder.eval()


def _own_backbone(release: Release, download: Mapping[str, Any]) -> str:
    """Its Hub id; or, where a revision is named, the folder that this revision was fetched to."""
    if release.revision is None or Path(release.backbone).is_dir():
        return release.backbone
    return str(fetch(release.backbone, BACKBONE, **{**download, "revision": release.revision}))


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], wanted: set[str], release: Release, prefix: str = ""
) -> None:
    """Load every one of `wanted` and no other; in the release their names begin with `prefix`."""
    if tensors.keys() != wanted:
        missing = sorted(authors_name(prefix + name) for name in wanted - tensors.keys())
        unknown = sorted(release.given[prefix + name] for name in tensors.keys() - wanted)
        raise CheckpointError(
            f"{release.files[0]} does not fit together: missing {', '.join(missing[:3]) or 'nothing'}; not known "
            f"{', '.join(unknown[:3]) or 'nothing'}"
        )
    expected = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{release.files[0]}: {release.given[prefix + name]} has the shape {tuple(tensor.shape)}, but beside "
                f"the other tensors it must have {tuple(expected[name].shape)}"
            )
    module.load_state_dict(tensors, strict=False)
