"""The location encoder over 100,000 coordinates: on the released weights, and on random ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import Row, compare, largest_difference, products
from bench.released import released_gallery, released_geoclip
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.model.location_encoder import LocationEncoder


def measure(quick: bool) -> list[Row]:
    """Unit vectors of the released gallery's places."""
    gallery = released_gallery(8_192 if quick else 100_000)
    ours, theirs = released_geoclip()
    assert isinstance(ours.location_encoder, LocationEncoder)
    said = f"location encoder, {len(gallery.gps_deg_G2):,} coordinates"
    denormals = sum(_denormals(one) for one in ours.location_encoder.parameters())
    random_ours, random_theirs = _randomised(ours.location_encoder, theirs.location_encoder)
    return [
        _row(
            said,
            ours.location_encoder,
            theirs.location_encoder,
            gallery,
            turns=3 if quick else 5,
            target=1.4,
            note=f"{denormals:,} released weights are denormal: products of them are slow, ours are without",
        ),
        _row(
            f"{said}, random weights",
            random_ours,
            random_theirs,
            gallery,
            turns=3,
            target=None,
            note="no denormals: what chunks and places that lie together give by themselves",
        ),
    ]


def _row(
    name: str, ours: LocationEncoder, theirs: Any, gallery: Gallery, turns: int, target: float | None, note: str
) -> Row:
    gps_deg_G2 = gallery.gps_deg_G2.float()

    @torch.inference_mode()
    def released() -> Tensor:
        return torch.nn.functional.normalize(theirs(gps_deg_G2), dim=1)

    weights = sum(one.numel() for name, one in ours.named_parameters() if "weight" in name)
    return compare(
        name,
        ours=lambda: encode_gallery(ours, gallery, torch.device("cpu")),
        released=released,
        agree=largest_difference(1e-5),
        turns=turns,
        target=target,
        limit=products(2 * weights * len(gps_deg_G2)),
        note=f"{note}; limit: the dense products",
    )


def _denormals(weight: Tensor) -> int:
    return int(((weight != 0) & (weight.abs() < torch.finfo(weight.dtype).tiny)).sum())


@torch.no_grad()
def _randomised(ours: LocationEncoder, theirs: nn.Module) -> tuple[LocationEncoder, nn.Module]:
    """Copies of both with the same new weights, drawn as a new encoder's are; the frequencies stay."""
    ours, theirs = copy.deepcopy(ours), copy.deepcopy(theirs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in ours.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    theirs_linear = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)]
    ours_linear = [layer for layer in ours.modules() if isinstance(layer, nn.Linear)]
    for mine, other in zip(ours_linear, theirs_linear, strict=True):
        other.load_state_dict(mine.state_dict())
    return ours, theirs
