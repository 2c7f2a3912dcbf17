"""The location encoder over 100,000 coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.harness import Row, compare, largest_difference, products
from bench.released import released_gallery, released_geoclip
from geoclip.evaluation.gallery import encode_gallery


def measure(quick: bool) -> list[Row]:
    """Unit vectors of the released gallery's places, on the released weights."""
    gallery = released_gallery(8_192 if quick else 100_000)
    ours, theirs = released_geoclip()
    gps_deg_G2 = gallery.gps_deg_G2.float()

    @torch.inference_mode()
    def released() -> Tensor:
        rows = [theirs.location_encoder(part) for part in gps_deg_G2.split(len(gps_deg_G2))]
        return torch.nn.functional.normalize(torch.cat(rows), dim=1)

    weights = sum(one.numel() for name, one in ours.location_encoder.named_parameters() if "weight" in name)
    places = len(gallery.gps_deg_G2)
    return [
        compare(
            f"location encoder, {places:,} coordinates",
            ours=lambda: encode_gallery(ours.location_encoder, gallery, torch.device("cpu")),
            released=released,
            agree=largest_difference(1e-5),
            turns=3 if quick else 5,
            target=1.4,
            limit=products(2 * weights * places),
            note="limit: the dense products",
        )
    ]
