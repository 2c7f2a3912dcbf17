"""Released weights, in the authors' and the Lightning layouts, read into modules or as a warm start."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoclip.data.assets import asset_path
from geoclip.errors import CheckpointError, first_line
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.hub import BACKBONE, fetch
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import FourierBranch, LocationEncoder

LOCATION, OUR_MLP = "location_encoder.", "image_encoder.head."

Rules = dict[str, Callable[[re.Match[str]], str | None]]  # pattern of a name -> the other name; None: not used

# In the authors' layout, capsule.0 has the frequencies and linear layers have odd numbers.
FROM_AUTHORS: Rules = {
    r"logit_scale": lambda m: m[0],
    r"image_encoder\.mlp\.(.+)": lambda m: f"image_encoder.head.{m[1]}",
    r"(location_encoder\.|)LocEnc(\d+)\.capsule\.0\.b": lambda m: f"{m[1]}branches.{m[2]}.freq_KA",
    r"(location_encoder\.|)LocEnc(\d+)\.head\.0\.(weight|bias)": lambda m: f"{m[1]}branches.{m[2]}.head.{m[3]}",
    r"(location_encoder\.|)LocEnc(\d+)\.capsule\.([1-9]\d*)\.(weight|bias)": (
        lambda m: f"{m[1]}branches.{m[2]}.mlp.{int(m[3]) - 1}.{m[4]}"
    ),
}
TO_AUTHORS: Rules = {
    r"logit_scale": lambda m: m[0],
    r"image_encoder\.head\.(.+)": lambda m: f"image_encoder.mlp.{m[1]}",
    r"(location_encoder\.|)branches\.(\d+)\.freq_KA": lambda m: f"{m[1]}LocEnc{m[2]}.capsule.0.b",
    r"(location_encoder\.|)branches\.(\d+)\.head\.(weight|bias)": lambda m: f"{m[1]}LocEnc{m[2]}.head.0.{m[3]}",
    r"(location_encoder\.|)branches\.(\d+)\.mlp\.(\d+)\.(weight|bias)": (
        lambda m: f"{m[1]}LocEnc{m[2]}.capsule.{int(m[3]) + 1}.{m[4]}"
    ),
}
# Versions differ in the MLP: two named layers, or a sequence of layer, ReLU, layer. Not used: CLIP, whose weights come
# from its own repository; queues and galleries.
LIGHTNING_LAYER = r"location_encoder\.LocationEncoderLayer(\d+)\."
LIGHTNING: Rules = {
    r"logit_scale": lambda m: m[0],
    r"image_encoder\.linear([12])\.(weight|bias)": lambda m: f"{OUR_MLP}{2 * int(m[1]) - 2}.{m[2]}",
    r"image_encoder\.linear_layers\.([02])\.(weight|bias)": lambda m: f"{OUR_MLP}{m[1]}.{m[2]}",
    LIGHTNING_LAYER + r"fourier_encoding\.(?:batch|b)": lambda m: f"{LOCATION}branches.{m[1]}.freq_KA",
    LIGHTNING_LAYER + r"head\.0\.(weight|bias)": lambda m: f"{LOCATION}branches.{m[1]}.head.{m[2]}",
    LIGHTNING_LAYER + r"linear(\d+)\.(weight|bias)": (
        lambda m: f"{LOCATION}branches.{m[1]}.mlp.{2 * int(m[2]) - 2}.{m[3]}"
    ),
    r"(?i)image_encoder\.(?:\w*clip\w*|vision_model|text_model|visual_projection|text_projection)\..*": lambda m: None,
    r"(?i)(?:\w*\.)?gps_\w+": lambda m: None,
}


def other_name(name: str, rules: Rules, layout: str) -> str | None:
    """The other name of a tensor; None: it is not used.

    Raises:
        KeyError: the layout has no such name.
    """
    for pattern, target in rules.items():
        if match := re.fullmatch(pattern, name):
            return target(match)
    raise KeyError(f"{name!r} is unknown in {layout}")


def authors_name(ours: str) -> str:
    """The name in the authors' layout of a tensor of `GeoCLIP` or `LocationEncoder`. Raises as `other_name`."""
    return str(other_name(ours, TO_AUTHORS, AUTHORS))


AUTHORS = "the authors' layout"
CLIP_VIT_L14 = "openai/clip-vit-large-patch14"
OFFICIAL_WEIGHTS = ("location_encoder.pth", "image_mlp.pth", "logit_scale.pth")
MODEL_TYPE, LOCATION_TYPE = "geoclip-geolocation", "geoclip-location-encoder"  # in config.json
OURS = "geoclip-ablations"  # model_type of models that their layout cannot store, see geoclip.factory.loading
FORMAT_VERSION = 1


@dataclass(kw_only=True, slots=True, frozen=True)
class Release:
    """Weights under our names, without the backbone's, and the settings and gallery released with them."""

    tensors: dict[str, Tensor]
    given: dict[str, str]  # name of each in its file
    sigmas: list[float]
    backbone: str = CLIP_VIT_L14  # Hub id
    revision: str | None = None  # of the backbone
    gallery_csv: Path | None = None
    files: tuple[Path, ...]  # of the weights


def read_release(files: Sequence[Path]) -> Release:
    """The weights of a release.

    `files`: OFFICIAL_WEIGHTS of the authors' wheel, a model.safetensors beside their config.json, or a .ckpt of the
    Lightning re-implementation.

    Raises:
        AssetError: the gallery is neither cached nor reachable.
        CheckpointError: another layout, or corrupt; the message names the file and the key.
    """
    if len(files) == len(OFFICIAL_WEIGHTS):
        return _official(files)
    return _lightning(files[0]) if files[0].suffix == ".ckpt" else _authors_layout(files[0].parent)


def _official(files: Sequence[Path]) -> Release:
    """The authors' weights and gallery, version 1.3.0 of their package."""
    location, mlp, scale = (torch.load(path, map_location="cpu", weights_only=True) for path in files)
    tensors = {f"{LOCATION}{other_name(name, FROM_AUTHORS, AUTHORS)}": tensor for name, tensor in location.items()}
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
    """config.json, model.safetensors and, for a complete model, the gallery's CSV."""
    config, config_json = read_release_config(folder), folder / "config.json"
    kind, version = config.get("model_type"), config.get("format_version")
    if kind not in (MODEL_TYPE, LOCATION_TYPE) or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_json}: model_type={kind!r} with format_version={version!r} is not {MODEL_TYPE!r} or "
            f"{LOCATION_TYPE!r} with {FORMAT_VERSION}"
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
        raise CheckpointError(f"{weights} cannot be read ({error}); download it again") from error
    renamed, given = _renamed(tensors, FROM_AUTHORS, AUTHORS, weights)
    prefix = LOCATION if kind == LOCATION_TYPE else ""
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
    except Exception as error:  # an unpickler may fail in any way
        raise CheckpointError(
            f"{path} cannot be read as a Lightning checkpoint without executing its contents "
            f"({first_line(error)}); save its state_dict alone: torch.save({{'state_dict': …}}, FILE.ckpt)"
        ) from error
    tensors = {re.sub(r"^(model|net|module)\.", "", name): one for name, one in tensors.items()}
    renamed, given = _renamed(tensors, LIGHTNING, "the Lightning re-implementation", path)
    frequencies = {
        int(name.split(".")[2]): one for name, one in renamed.items() if name.endswith("freq_KA") and one.ndim == 2
    }
    return Release(
        tensors=renamed,
        given=given,
        # The settings may be missing. A sigma is the spread of its frequencies, usually a power of two.
        sigmas=[_sigma_of(one, path) for _, one in sorted(frequencies.items())],
        files=(path,),
    )


def _sigma_of(freq_KA: Tensor, path: Path) -> float:
    spread = freq_KA.double().std().item()
    if not 0 < spread < math.inf:
        raise CheckpointError(f"{path}: the standard deviation of its frequencies is {spread}, which is no sigma")
    return 2.0 ** round(math.log2(spread))


def read_release_config(folder: Path) -> dict[str, Any]:
    """config.json of a release, from an untrusted source.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} cannot be read as a release of GeoCLIP, which has config.json and model.safetensors: {error}"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} must be an object, not a {type(config).__name__}")
    return config


def _renamed(
    tensors: Mapping[str, Tensor], rules: Rules, layout: str, path: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under our names, and the name of each in the file."""
    renamed, given = {}, {}
    for theirs, tensor in tensors.items():
        try:
            ours = other_name(theirs, rules, layout)
        except KeyError as error:
            raise CheckpointError(f"{path}: {error.args[0]}") from None
        if ours is not None:
            renamed[ours], given[ours] = tensor, theirs
    return renamed, given


OWN = "own"  # the backbone that a release names


def model_of(release: Release, backbone: str | None, **download: Any) -> GeoCLIP:
    """The model in evaluation mode.

    `backbone`: CLIP as a Hub id or a local folder; `own`: the one that the release names, downloaded with the options
    `download`; None: no backbone.

    Raises:
        AssetError: the backbone is neither a local folder nor reachable.
        CheckpointError: the release has only a location encoder, or its tensors do not fit together.
    """
    first, last = release.tensors.get(f"{OUR_MLP}0.weight"), release.tensors.get(f"{OUR_MLP}2.weight")
    if first is None or last is None:
        raise CheckpointError(
            f"{release.files[0]} has only a location encoder; read it with geoclip.load_location_encoder"
        )
    if backbone == OWN:
        backbone = _own_backbone(release, download)
    clip = ClipBackbone.from_pretrained(backbone) if backbone else None
    if clip is not None and clip.feature_dim != first.shape[1]:
        raise CheckpointError(
            f"{release.files[0]} takes {first.shape[1]} features, but the backbone {backbone} has "
            f"{clip.feature_dim}; name the backbone that it was trained with"
        )
    image_encoder = ImageEncoder(
        clip, feature_dim=first.shape[1], hidden_dim=first.shape[0], embedding_dim=last.shape[0], frozen=True
    )
    model = GeoCLIP(image_encoder, location_encoder_of(release))
    own = {name: one for name, one in release.tensors.items() if not name.startswith(LOCATION)}
    _fill(model, own, {"logit_scale", *(OUR_MLP + name for name in image_encoder.head.state_dict())}, release)
    return model.eval()


def location_encoder_of(release: Release) -> LocationEncoder:
    """The location encoder in evaluation mode, of the size of its tensors.

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
    """The backbone's Hub id; with a revision, the folder of the downloaded revision."""
    if release.revision is None or Path(release.backbone).is_dir():
        return release.backbone
    return str(fetch(release.backbone, BACKBONE, **{**download, "revision": release.revision}))


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], wanted: set[str], release: Release, prefix: str = ""
) -> None:
    """Load exactly the tensors `wanted`; in the release their names begin with `prefix`."""
    if tensors.keys() != wanted:
        missing = sorted(authors_name(prefix + name) for name in wanted - tensors.keys())
        unknown = sorted(release.given[prefix + name] for name in tensors.keys() - wanted)
        raise CheckpointError(
            f"{release.files[0]} does not fit together: missing {', '.join(missing[:3]) or 'nothing'}; unknown "
            f"{', '.join(unknown[:3]) or 'nothing'}"
        )
    expected = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{release.files[0]}: {release.given[prefix + name]} has the shape {tuple(tensor.shape)}, but the "
                f"other tensors need {tuple(expected[name].shape)}"
            )
    module.load_state_dict(tensors, strict=False)


def take_up_scales(encoder: LocationEncoder, trained: LocationEncoder, *, freeze: bool = False) -> list[float]:
    """Copy the weights of every trained branch whose sigma the encoder has; start the heads of new scales at zero.

    At first, the embedding is that of the copied scales; with `freeze` they are not trained.

    Returns:
        The sigmas of the copied scales.

    Raises:
        ValueError: no sigma in common, other dimensions, or scales that are concatenated.
    """
    if encoder.projection != trained.projection or encoder.concat or trained.concat:
        raise ValueError("a warm start needs the same projection, and scales that are summed")
    by_sigma = dict(zip(trained.sigmas, trained.branches, strict=True))
    taken = []
    for sigma, branch in zip(encoder.sigmas, encoder.branches, strict=True):
        assert isinstance(branch, FourierBranch)
        known = by_sigma.get(sigma)
        if known is None:
            torch.nn.init.zeros_(branch.head.weight)
            torch.nn.init.zeros_(branch.head.bias)
            continue
        try:
            branch.load_state_dict(known.state_dict())
        except RuntimeError as error:
            raise ValueError(f"the scale {sigma:g}: {str(error).splitlines()[-1].strip()}") from None
        branch.requires_grad_(not freeze)
        taken.append(sigma)
    if not taken:
        raise ValueError(f"none of the sigmas {list(encoder.sigmas)} is among those trained, {list(trained.sigmas)}")
    return taken
