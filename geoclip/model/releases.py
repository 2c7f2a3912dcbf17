"""Released weights: the authors' wheel, their Hub layout, and checkpoints of the Lightning re-implementation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from geoclip.data.assets import asset_path
from geoclip.errors import CheckpointError
from geoclip.model.release_names import LOCATION, OUR_MLP, our_location_name, our_name, our_name_from_lightning

CLIP_VIT_L14 = "openai/clip-vit-large-patch14"
OFFICIAL_WEIGHTS = ("location_encoder.pth", "image_mlp.pth", "logit_scale.pth")
WHOLE, LOCATION_ALONE = ("geoclip-geolocation", "geoclip-location-encoder")  # model_type in the authors' config.json
OURS = "geoclip-ablations"  # model_type of what their layout cannot store, see geoclip.build.published
FORMAT_VERSION = 1


@dataclass(kw_only=True, slots=True, frozen=True)
class Release:
    """Weights under our names, without the backbone's, and what came with them."""

    tensors: dict[str, Tensor]
    given: dict[str, str]  # what each is called in its file
    sigmas: list[float]
    backbone: str = CLIP_VIT_L14  # Hub id
    revision: str | None = None  # of the backbone
    gallery_csv: Path | None = None
    files: tuple[Path, ...]  # that the weights were read from


def read_release(files: Sequence[Path]) -> Release:
    """The weights of a release.

    Args:
        files: OFFICIAL_WEIGHTS of the authors' wheel, one model.safetensors beside the authors' config.json, or one
            .ckpt of the Lightning re-implementation.

    Raises:
        AssetError: it is neither at hand nor reachable.
        CheckpointError: it is of another layout, or corrupt; the message names the file and the key.
    """
    if len(files) == len(OFFICIAL_WEIGHTS):
        return _official(files)
    return _lightning(files[0]) if files[0].suffix == ".ckpt" else _authors_layout(files[0].parent)


def _official(files: Sequence[Path]) -> Release:
    """The authors' weights and gallery, version 1.3.0 of their package."""
    location, mlp, scale = (torch.load(path, map_location="cpu", weights_only=True) for path in files)
    tensors = {LOCATION + our_location_name(name): tensor for name, tensor in location.items()}
    tensors |= {OUR_MLP + name: tensor for name, tensor in mlp.items()}
    tensors |= {"logit_scale": scale.detach()}
    return Release(
        tensors=tensors,
        given={name: name for name in tensors},
        sigmas=[1.0, 16.0, 256.0],
        gallery_csv=asset_path("gallery_100k.csv"),
        files=tuple(files),
    )


def _authors_layout(folder: Path) -> Release:
    """config.json, model.safetensors and, for the whole model, the gallery's CSV."""
    config, config_json = read_release_config(folder), folder / "config.json"
    kind, version = config.get("model_type"), config.get("format_version")
    if kind not in (WHOLE, LOCATION_ALONE) or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_json}: model_type={kind!r} with format_version={version!r} is not {WHOLE!r} or "
            f"{LOCATION_ALONE!r} with {FORMAT_VERSION}"
        )
    sigma, gallery, backbone = config.get("sigma"), config.get("gallery_file"), config.get("backbone", {})
    numbers = isinstance(sigma, list) and all(type(one) in (int, float) and 0 < one < math.inf for one in sigma)
    if not sigma or not numbers:
        raise CheckpointError(f"{config_json}: sigma={sigma!r} must be a list of positive numbers, one for each scale")
    if gallery is not None and not (
        isinstance(gallery, str) and Path(gallery).name == gallery and (folder / gallery).is_file()
    ):
        raise CheckpointError(f"{config_json}: gallery_file={gallery!r} must name a CSV beside it")
    if not isinstance(backbone, dict):
        raise CheckpointError(f"{config_json}: backbone={backbone!r} must have repo_id and revision")
    weights = folder / "model.safetensors"
    try:
        tensors = safetensors.torch.load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights} cannot be read ({error}); fetch it again") from error
    renamed, given = _renamed(our_location_name if kind == LOCATION_ALONE else our_name, tensors, weights)
    prefix = LOCATION if kind == LOCATION_ALONE else ""
    return Release(
        tensors={prefix + name: tensor for name, tensor in renamed.items()},
        given={prefix + name: theirs for name, theirs in given.items()},
        sigmas=[float(one) for one in sigma],
        backbone=str(backbone.get("repo_id", CLIP_VIT_L14)),
        revision=backbone.get("revision"),
        gallery_csv=folder / gallery if gallery else None,
        files=(weights,),
    )


def _lightning(path: Path) -> Release:
    """A checkpoint of the Lightning re-implementation; nothing in it is executed."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {str(name): one for name, one in saved.get("state_dict", saved).items() if one.numel()}
    except Exception as error:  # a pickle may fail in any way; nothing of it has run
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{path} cannot be read as a Lightning checkpoint without executing its contents "
            f"({reason}); save its state_dict alone: torch.save({{'state_dict': …}}, FILE.ckpt)"
        ) from error
    renamed, given = _renamed(our_name_from_lightning, tensors, path)
    frequencies = {
        int(name.split(".")[2]): one for name, one in renamed.items() if name.endswith("freq_KA") and one.ndim == 2
    }
    return Release(
        tensors=renamed,
        given=given,
        # Its settings may be absent, but the frequencies tell: a sigma is their spread, nearly always a power of two.
        sigmas=[_sigma_of(one, path) for _, one in sorted(frequencies.items())],
        files=(path,),
    )


def _sigma_of(freq_KA: Tensor, path: Path) -> float:
    spread = freq_KA.double().std().item()
    if not 0 < spread < math.inf:
        raise CheckpointError(f"{path}: its frequencies have the spread {spread}, not that of a random draw")
    return 2.0 ** round(math.log2(spread))


def read_release_config(folder: Path) -> dict[str, Any]:
    """config.json of a release, which anybody may have written.

    Raises:
        CheckpointError: it is missing, or no JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} cannot be read as a release of GeoCLIP, which has config.json and model.safetensors: {error}"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} must hold an object, not a {type(config).__name__}")
    return config


def _renamed(
    our_name_of: Callable[[str], str | None], tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Under our names, and what each was called."""
    renamed, given = {}, {}
    for theirs, tensor in tensors.items():
        try:
            ours = our_name_of(theirs)
        except KeyError as error:
            raise CheckpointError(f"{path}: {error.args[0]}") from None
        if ours is not None:
            renamed[ours], given[ours] = tensor, theirs
    return renamed, given
