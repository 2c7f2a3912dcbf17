"""The authors' Hub layout, written: what their package and this one both read."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from geoclip.errors import GeoclipError
from geoclip.files import write_bytes_atomic
from geoclip.model.exporting import is_authors_kind
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.release_names import authors_name
from geoclip.model.releases import FORMAT_VERSION, WHOLE
from geoclip.run_dir import write_json

GALLERY = "gallery.csv"
BACKBONE = "image_encoder.backbone."


def authors_misfits(model: GeoCLIP) -> list[str]:
    """Why the authors' layout cannot store this model; empty where it can.

    Its backbone, which the layout only names, and the size of its layers, which the authors' code expects to be theirs
    but this package reads from the tensors, are not checked.
    """
    misfits = []
    if not is_authors_kind(model.location_encoder):
        misfits.append("its location encoder is no Equal Earth hierarchy of separate, summed scales")
    if model.logit_bias is not None:
        misfits.append("the sigmoid loss added a bias to its logits")
    return misfits


def write_authors_layout(folder: Path, model: GeoCLIP, *, backbone: str, revision: str | None) -> list[Path]:
    """config.json and model.safetensors beside the gallery's CSV.

    Args:
        folder: contains GALLERY with columns LAT, LON.
        model: its backbone's weights are not written.
        backbone: the Hub id of its frozen CLIP.
        revision: of the backbone; None: whatever its `main` is.

    Returns:
        The files.

    Raises:
        GeoclipError: the layout cannot store this model.
    """
    if misfits := authors_misfits(model):
        raise GeoclipError(f"the authors' layout cannot store this model: {'; '.join(misfits)}")
    assert isinstance(model.location_encoder, LocationEncoder)
    tensors = {name: one for name, one in model.state_dict().items() if not name.startswith(BACKBONE)}
    config = {
        "model_type": WHOLE,
        "format_version": FORMAT_VERSION,
        "sigma": [int(sigma) if sigma == int(sigma) else sigma for sigma in model.location_encoder.sigmas],
        "gallery_file": GALLERY,
        "backbone": {"repo_id": backbone, "revision": revision},
    }
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", {authors_name(name): one for name, one in tensors.items()})
    return [folder / name for name in ("config.json", GALLERY, "model.safetensors")]


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a complete safetensors file or none."""
    write_bytes_atomic(path, save({name: one.detach().cpu().contiguous() for name, one in tensors.items()}))
