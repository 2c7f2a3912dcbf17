"""What GeoCLIP's tensors are called: in the authors' files, in the Lightning re-implementation's, and here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# LocEnc0.capsule.1.weight -> branches.0.mlp.0.weight; capsule.0 is the Fourier layer, so the MLP starts at 1
_AUTHORS = re.compile(
    r"LocEnc(?P<branch>\d+)\.(?P<part>capsule|head)\.(?P<layer>\d+)\.(?P<name>b|weight|bias)"
)
_OURS = re.compile(
    r"branches\.(?P<branch>\d+)\.(?:freq_KA|(?:mlp\.(?P<layer>\d+)|head)\.(?P<name>weight|bias))"
)
_LIGHTNING = re.compile(
    r"LocationEncoderLayer(?P<branch>\d+)\."
    r"(?:fourier_encoding\.batch|(?:linear(?P<layer>\d+)|head\.0)\.(?P<name>weight|bias))"
)
LOCATION, IMAGE_MLP = "location_encoder.", "image_encoder.mlp."
OUR_MLP = "image_encoder.head."


def our_location_name(released: str) -> str:
    """The name in `LocationEncoder` of a tensor in the authors' file.

    Raises:
        KeyError: a name that the released code does not write.
    """
    match = _AUTHORS.fullmatch(released)
    if match is None:
        raise KeyError(f"{released!r} is no name of the released location encoder")
    branch = f"branches.{match['branch']}"
    if match["name"] == "b":
        return f"{branch}.freq_KA"
    if match["part"] == "head":
        return f"{branch}.head.{match['name']}"
    return f"{branch}.mlp.{int(match['layer']) - 1}.{match['name']}"


def released_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `LocationEncoder` under the names that the authors' code gives them.

    Raises:
        KeyError: a tensor that the authors' code has no name for.
    """
    return {_released_location_name(ours): tensor for ours, tensor in state_dict.items()}


def from_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole model's tensors of the authors' Hub layout, under our names.

    Raises:
        KeyError: a name that the layout does not have.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name == "logit_scale":
            renamed[name] = tensor
        elif name.startswith(LOCATION):
            renamed[LOCATION + our_location_name(name.removeprefix(LOCATION))] = tensor
        elif name.startswith(IMAGE_MLP):
            renamed[OUR_MLP + name.removeprefix(IMAGE_MLP)] = tensor
        else:
            raise KeyError(f"{name!r} is no name of the authors' release layout")
    return renamed


def to_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round.

    Raises:
        KeyError: a tensor that the layout has no name for.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name == "logit_scale":
            renamed[name] = tensor
        elif name.startswith(LOCATION):
            renamed[LOCATION + _released_location_name(name.removeprefix(LOCATION))] = tensor
        elif name.startswith(OUR_MLP):
            renamed[IMAGE_MLP + name.removeprefix(OUR_MLP)] = tensor
        else:
            raise KeyError(f"{name!r} has no name in the authors' release layout")
    return renamed


def from_lightning(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Lightning checkpoint's tensors under our names; those of CLIP, which its own source brings, are left out.

    Raises:
        KeyError: a name that the re-implementation does not write.
    """
    renamed = {}
    for given, tensor in tensors.items():
        name = re.sub(r"^(model|net|module)\.", "", given)
        linear = re.fullmatch(r"image_encoder\.linear([12])\.(weight|bias)", name)
        place = _LIGHTNING.fullmatch(name.removeprefix(LOCATION)) if name.startswith(LOCATION) else None
        if name == "logit_scale":
            renamed[name] = tensor
        elif linear:
            renamed[f"{OUR_MLP}{2 * int(linear[1]) - 2}.{linear[2]}"] = tensor
        elif place:
            branch = f"{LOCATION}branches.{place['branch']}"
            if place["name"] is None:
                renamed[f"{branch}.freq_KA"] = tensor
            elif place["layer"] is None:
                renamed[f"{branch}.head.{place['name']}"] = tensor
            else:
                renamed[f"{branch}.mlp.{2 * int(place['layer']) - 2}.{place['name']}"] = tensor
        elif not name.startswith("image_encoder.") and "queue" not in name:
            raise KeyError(f"{given!r} is no name of the Lightning re-implementation")
    return renamed


def _released_location_name(ours: str) -> str:
    match = _OURS.fullmatch(ours)
    if match is None:
        raise KeyError(f"{ours!r} has no name in the released location encoder")
    branch = f"LocEnc{match['branch']}"
    if match["layer"] is not None:
        return f"{branch}.capsule.{int(match['layer']) + 1}.{match['name']}"
    return f"{branch}.capsule.0.b" if match["name"] is None else f"{branch}.head.0.{match['name']}"
