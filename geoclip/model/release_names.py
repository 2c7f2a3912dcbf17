"""What GeoCLIP's tensors are called: in the authors' files, in the Lightning re-implementation's, and here."""

from __future__ import annotations

import re

LOCATION, IMAGE_MLP, OUR_MLP = "location_encoder.", "image_encoder.mlp.", "image_encoder.head."
# LocEnc0.capsule.1.weight -> branches.0.mlp.0.weight; capsule.0 is the Fourier layer, so the MLP starts at 1
_AUTHORS = re.compile(
    r"LocEnc(?P<branch>\d+)\.(?:capsule\.0\.b|(?:capsule\.(?P<layer>[1-9]\d*)|head\.0)\.(?P<name>weight|bias))"
)
_OURS = re.compile(r"branches\.(?P<branch>\d+)\.(?:freq_KA|(?:mlp\.(?P<layer>\d+)|head)\.(?P<name>weight|bias))")
_LIGHTNING = re.compile(
    r"LocationEncoderLayer(?P<branch>\d+)\."
    r"(?:fourier_encoding\.(?:batch|b)|(?:linear(?P<layer>\d+)|head\.0)\.(?P<name>weight|bias))"
)
# Its versions differ in the MLP: two layers by name, or the same two as a sequence with a ReLU between.
_LIGHTNING_MLP = re.compile(r"image_encoder\.linear(?:(?P<one>[12])|_layers\.(?P<row>[02]))\.(?P<name>weight|bias)")
_LIGHTNING_ELSEWHERE = re.compile(  # CLIP, which its own source brings; negatives and galleries, which are no weights
    r"image_encoder\.(?:\w*clip\w*|vision_model|text_model|visual_projection|text_projection)\..*|(?:\w*\.)?gps_\w+",
    re.IGNORECASE,
)


def our_location_name(authors: str) -> str:
    """The name in `LocationEncoder` of a tensor in the authors' file.

    Raises:
        KeyError: a name that the authors' code does not write.
    """
    match = _AUTHORS.fullmatch(authors)
    if match is None:
        raise KeyError(f"{authors!r} is no name of the released location encoder")
    return _branch_tensor(match, -1)


def our_name(authors: str) -> str:
    """The name in `GeoCLIP` of a tensor in the authors' Hub layout.

    Raises:
        KeyError: a name that the layout does not have.
    """
    if authors == "logit_scale":
        return authors
    if authors.startswith(LOCATION):
        return LOCATION + our_location_name(authors.removeprefix(LOCATION))
    if authors.startswith(IMAGE_MLP):
        return OUR_MLP + authors.removeprefix(IMAGE_MLP)
    raise KeyError(f"{authors!r} is no name of the authors' layout")


def our_name_from_lightning(given: str) -> str | None:
    """The name in `GeoCLIP` of a tensor in a Lightning checkpoint; None of what is not needed from there.

    Raises:
        KeyError: a name that the re-implementation does not write.
    """
    name = re.sub(r"^(model|net|module)\.", "", given)
    if name == "logit_scale":
        return name
    if layer := _LIGHTNING_MLP.fullmatch(name):
        row = layer["row"] or 2 * int(layer["one"]) - 2
        return f"{OUR_MLP}{row}.{layer['name']}"
    if name.startswith(LOCATION) and (match := _LIGHTNING.fullmatch(name.removeprefix(LOCATION))):
        return LOCATION + _branch_tensor(match, None)
    if _LIGHTNING_ELSEWHERE.fullmatch(name):
        return None
    raise KeyError(f"{given!r} is no name of the Lightning re-implementation")


def authors_name(ours: str) -> str:
    """The name in the authors' Hub layout of a tensor of `GeoCLIP`.

    Raises:
        KeyError: the layout has no name for it.
    """
    if ours == "logit_scale":
        return ours
    if ours.startswith(LOCATION):
        return LOCATION + authors_location_name(ours.removeprefix(LOCATION))
    if ours.startswith(OUR_MLP):
        return IMAGE_MLP + ours.removeprefix(OUR_MLP)
    raise KeyError(f"{ours!r} has no name in the authors' layout")


def _branch_tensor(match: re.Match[str], first: int | None) -> str:
    """Ours; `first` is added to the layer's number, None: they count linear layers from 1, not modules."""
    branch = f"branches.{match['branch']}"
    if match["name"] is None:
        return f"{branch}.freq_KA"
    if match["layer"] is None:
        return f"{branch}.head.{match['name']}"
    layer = int(match["layer"])
    return f"{branch}.mlp.{2 * layer - 2 if first is None else layer + first}.{match['name']}"


def authors_location_name(ours: str) -> str:
    """The name in the authors' file of a tensor of `LocationEncoder`.

    Raises:
        KeyError: their code has no name for it.
    """
    match = _OURS.fullmatch(ours)
    if match is None:
        raise KeyError(f"{ours!r} has no name in the released location encoder")
    branch = f"LocEnc{match['branch']}"
    if match["layer"] is not None:
        return f"{branch}.capsule.{int(match['layer']) + 1}.{match['name']}"
    return f"{branch}.capsule.0.b" if match["name"] is None else f"{branch}.head.0.{match['name']}"
