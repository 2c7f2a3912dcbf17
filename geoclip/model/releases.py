"""Released weights: the authors' wheel, their Hub layout, and checkpoints of the Lightning re-implementation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoclip.data.assets import asset_path
from geoclip.errors import AssetError, CheckpointError
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.release_names import LOCATION, OUR_MLP, from_authors, from_lightning, our_location_name

CLIP_VIT_L14 = "openai/clip-vit-large-patch14"
WHOLE, LOCATION_ALONE = "geoclip-geolocation", "geoclip-location-encoder"  # model_type in config.json
FORMAT_VERSION = 1
HUB = "hf-hub:"  # before a Hub id where a name could also be a path, as open_clip and timm write it
PATTERNS = ["config.json", "model.safetensors", "*.csv"]


def is_release(checkpoint: str) -> bool:
    """Whether a command's `checkpoint` names a release, not a run of ours."""
    path = Path(checkpoint)
    return (
        checkpoint == "official"
        or checkpoint.startswith(HUB)
        or path.suffix == ".ckpt"
        or ((path / "config.json").is_file() and (path / "model.safetensors").is_file())
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class Release:
    """Weights under our names, without the backbone's, and what came with them."""

    tensors: dict[str, Tensor]
    sigmas: list[float]
    backbone: str  # Hub id
    gallery_csv: Path | None
    files: tuple[Path, ...]  # that the weights were read from


def read_release(source: str | Path, **download: Any) -> Release:
    """What a source holds.

    Args:
        source: `official`, the weights inside the pinned wheel on the package index; a folder in the authors' Hub
            layout; a Hub id, with or without `hf-hub:` before it; or a .ckpt of the Lightning re-implementation.
        download: revision, token, cache_dir, local_files_only of `huggingface_hub.snapshot_download`.

    Raises:
        AssetError: it is neither at hand nor reachable.
        CheckpointError: it is of another layout, or damaged; the message names the file and the key.
    """
    if str(source) == "official":
        return _official()
    path = Path(source).expanduser()
    if path.is_file():
        return _lightning(path)
    return _authors_layout(path if path.is_dir() else _download(str(source), download))


def model_of(release: Release, backbone: str | None) -> GeoCLIP:
    """The model in evaluation mode; with the backbone from this Hub id or folder, or without one.

    Raises:
        AssetError: the backbone is neither a local folder nor reachable.
        CheckpointError: the release holds a location encoder alone, or its tensors do not fit together.
    """
    first, last = release.tensors.get(f"{OUR_MLP}0.weight"), release.tensors.get(f"{OUR_MLP}2.weight")
    if first is None or last is None:
        raise CheckpointError(
            f"{release.files[0]} holds a location encoder alone; read it with LocationEncoder.from_pretrained"
        )
    image_encoder = ImageEncoder(
        ClipBackbone.from_pretrained(backbone) if backbone else None,
        feature_dim=first.shape[1],
        hidden_dim=first.shape[0],
        embedding_dim=last.shape[0],
        frozen=True,
    )
    model = GeoCLIP(image_encoder, location_encoder_of(release))
    own = {name: one for name, one in release.tensors.items() if not name.startswith(LOCATION)}
    wanted = {"logit_scale", *(f"{OUR_MLP}{name}" for name in image_encoder.head.state_dict())}
    _fill(model, own, wanted, release)
    return model.eval()


def location_encoder_of(release: Release) -> LocationEncoder:
    """The location encoder in evaluation mode, as large as its tensors are.

    Raises:
        CheckpointError: tensors are missing, or do not fit together.
    """
    tensors = {
        name.removeprefix(LOCATION): one for name, one in release.tensors.items() if name.startswith(LOCATION)
    }
    frequencies, head = tensors.get("branches.0.freq_KA"), tensors.get("branches.0.head.weight")
    if frequencies is None or head is None or not release.sigmas:
        raise CheckpointError(f"{release.files[0]} holds no location encoder of GeoCLIP")
    depth = sum(name.startswith("branches.0.mlp.") and name.endswith("weight") for name in tensors)
    encoder = LocationEncoder(
        release.sigmas,
        frequencies=frequencies.shape[0],
        hidden_dim=head.shape[1],
        depth=depth,
        embedding_dim=head.shape[0],
    )
    _fill(encoder, tensors, set(encoder.state_dict()), release)
    return encoder.eval()


def _official() -> Release:
    """The authors' weights and gallery, version 1.3.0 of their package."""
    names = ("location_encoder.pth", "image_mlp.pth", "logit_scale.pth")
    files = tuple(asset_path(name) for name in names)
    location, mlp, scale = (torch.load(path, map_location="cpu", weights_only=True) for path in files)
    tensors = {LOCATION + our_location_name(name): tensor for name, tensor in location.items()}
    tensors |= {OUR_MLP + name: tensor for name, tensor in mlp.items()}
    return Release(
        tensors=tensors | {"logit_scale": scale.detach()},
        sigmas=[1.0, 16.0, 256.0],
        backbone=CLIP_VIT_L14,
        gallery_csv=asset_path("gallery_100k.csv"),
        files=files,
    )


def _authors_layout(folder: Path) -> Release:
    """config.json, model.safetensors and, for the whole model, the gallery's CSV."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read as a release of GeoCLIP, which has config.json and model.safetensors: {error}"
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in (WHOLE, LOCATION_ALONE) or config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type={kind!r} with format_version="
            f"{config.get('format_version') if isinstance(config, dict) else None!r} is not {WHOLE!r} or "
            f"{LOCATION_ALONE!r} with {FORMAT_VERSION}"
        )
    if kind == LOCATION_ALONE:
        tensors = {LOCATION + name: tensor for name, tensor in tensors.items()}
    gallery = config.get("gallery_file")
    if gallery is not None and (not isinstance(gallery, str) or Path(gallery).name != gallery):
        raise CheckpointError(f"{folder / 'config.json'}: gallery_file={gallery!r} must name a CSV beside it")
    return Release(
        tensors=_renamed(from_authors, tensors, folder / "model.safetensors"),
        sigmas=[float(sigma) for sigma in config["sigma"]],
        backbone=str(config.get("backbone", {}).get("repo_id", CLIP_VIT_L14)),
        gallery_csv=folder / gallery if gallery else None,
        files=(folder / "model.safetensors",),
    )


def _lightning(path: Path) -> Release:
    """A checkpoint of the Lightning re-implementation; nothing in it is executed."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(saved.get("state_dict", saved))
    except Exception as error:  # a pickle may fail in any way; nothing of it has run
        raise CheckpointError(
            f"{path} cannot be read as a Lightning checkpoint: {str(error).splitlines()[0]}"
        ) from error
    renamed = _renamed(from_lightning, tensors, path)
    frequencies = sorted(name for name in renamed if name.endswith("freq_KA"))
    return Release(
        tensors=renamed,
        # Its settings may be absent, but the frequencies tell: a sigma is their spread.
        sigmas=[2.0 ** round(math.log2(renamed[name].std().item())) for name in frequencies],
        backbone=CLIP_VIT_L14,
        gallery_csv=None,
        files=(path,),
    )


def _download(source: str, options: Mapping[str, Any]) -> Path:
    """A snapshot of a Hub repository's configuration, weights and gallery."""
    from huggingface_hub import snapshot_download

    repo = source.removeprefix(HUB)
    try:
        return Path(snapshot_download(repo, allow_patterns=PATTERNS, **options))
    except (OSError, ValueError) as error:  # the Hub's own errors are of these kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise AssetError(
            f"{source!r} is no folder, no .ckpt, not 'official', and not reachable on the Hub ({reason}); give a "
            "folder with config.json and model.safetensors"
        ) from error


def _renamed(names: Any, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = names(tensors)
    except KeyError as error:
        raise CheckpointError(f"{path}: {error.args[0]}") from None
    return found


def _fill(module: nn.Module, tensors: dict[str, Tensor], wanted: set[str], release: Release) -> None:
    """Load by name, every one of `wanted` and no other."""
    if tensors.keys() != wanted:
        missing, unknown = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
        raise CheckpointError(
            f"{release.files[0]} does not fit together: missing {', '.join(missing[:3]) or 'nothing'}; not known "
            f"{', '.join(unknown[:3]) or 'nothing'}"
        )
    try:
        module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{release.files[0]}: {str(error).splitlines()[-1].strip()}") from error
