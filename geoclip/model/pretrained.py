"""The released GeoCLIP weights, loaded by name into our modules."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from geoclip.data.assets import asset_path
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder

# LocEnc0.capsule.1.weight -> branches.0.mlp.0.weight; capsule.0 is the Fourier layer, so the MLP starts at 1
_RELEASED = re.compile(
    r"LocEnc(?P<branch>\d+)\.(?P<part>capsule|head)\.(?P<layer>\d+)\.(?P<name>b|weight|bias)"
)

_OURS = re.compile(
    r"branches\.(?P<branch>\d+)\.(?:freq_KA|(?:mlp\.(?P<layer>\d+)|head)\.(?P<name>weight|bias))"
)


def require_official(source: str) -> None:
    """Raises ValueError unless the source is `official`, the only release this version knows."""
    if source != "official":
        raise ValueError(f"no release is called {source!r}; 'official' is the authors' (PyPI geoclip 1.3.0)")


def our_location_name(released: str) -> str:
    """The name in `LocationEncoder` of a tensor in the released file.

    Raises:
        KeyError: a name that the released code does not write.
    """
    match = _RELEASED.fullmatch(released)
    if match is None:
        raise KeyError(f"{released!r} is no name of the released location encoder")
    branch = f"branches.{match['branch']}"
    if match["name"] == "b":
        return f"{branch}.freq_KA"
    if match["part"] == "head":
        return f"{branch}.head.{match['name']}"
    return f"{branch}.mlp.{int(match['layer']) - 1}.{match['name']}"


def released_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `LocationEncoder` under the names that the released code gives them.

    Raises:
        KeyError: a tensor that the released code has no name for.
    """
    return {_released_location_name(ours): tensor for ours, tensor in state_dict.items()}


def _released_location_name(ours: str) -> str:
    match = _OURS.fullmatch(ours)
    if match is None:
        raise KeyError(f"{ours!r} has no name in the released location encoder")
    branch = f"LocEnc{match['branch']}"
    if match["layer"] is not None:
        return f"{branch}.capsule.{int(match['layer']) + 1}.{match['name']}"
    return f"{branch}.capsule.0.b" if match["name"] is None else f"{branch}.head.0.{match['name']}"


def released_location_encoder() -> LocationEncoder:
    """The authors' location encoder: sigma 2^0, 2^4, 2^8; 512-d embeddings; in evaluation mode."""
    weights = {our_location_name(name): tensor for name, tensor in _tensors("location_encoder.pth").items()}
    encoder = LocationEncoder((1.0, 16.0, 256.0))
    encoder.load_state_dict(weights, strict=True)
    return encoder.eval()


def released_geoclip(backbone: str | None) -> GeoCLIP:
    """The authors' model in evaluation mode; `backbone` as in `GeoCLIP.from_pretrained`."""
    clip = ClipBackbone.from_pretrained(backbone) if backbone else None
    image_encoder = ImageEncoder(clip, feature_dim=768, hidden_dim=768, embedding_dim=512, frozen=True)
    image_encoder.head.load_state_dict(_tensors("image_mlp.pth"), strict=True)
    model = GeoCLIP(image_encoder, released_location_encoder())
    scale = torch.load(asset_path("logit_scale.pth"), map_location="cpu", weights_only=True)
    with torch.no_grad():
        model.logit_scale.copy_(scale)
    return model.eval()


def _tensors(asset: str) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(asset_path(asset), map_location="cpu", weights_only=True)
    return loaded
