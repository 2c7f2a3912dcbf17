"""From an image's features to the five best places and their probabilities, one image and 64 at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.harness import Row, compare, reading
from bench.parity import TOP, queries_for
from bench.released import released_gallery, released_geoclip
from geoclip.evaluation.gallery import encode_gallery, without_denormals
from geoclip.inference.prediction import GuessSettings, guess_locations

BATCH = 64
Best = list[tuple[list[tuple[float, float]], list[float]]]  # of each image: places in degrees, and probabilities


def measure(quick: bool) -> list[Row]:
    """Ours with the gallery embedded before; the released `predict` encodes it in every call, for one image."""
    gallery = released_gallery(512 if quick else 100_000)
    ours, theirs = released_geoclip()
    encoder = without_denormals(ours.location_encoder)
    gallery_GD = encode_gallery(encoder, gallery, torch.device("cpu"))
    features_NF = _features(ours, BATCH)
    locations_G2, scale = gallery.gps_deg_G2.float(), ours.logit_scale.exp().item()

    @torch.inference_mode()
    def mine(count: int) -> Best:
        image_ND = ours.encode_features(features_NF[:count])
        asked = guess_locations(
            image_ND, [None] * count, gallery, gallery_GD, encoder, GuessSettings(scale=scale, k=TOP)
        )
        return [
            ([(one.lat, one.lon) for one in answer.guesses], [one.probability for one in answer.guesses])
            for answer in asked
        ]

    @torch.inference_mode()
    def released(first: int = 0) -> Best:
        """`predict` after the picture is opened, word by word."""
        probability_1G = theirs(features_NF[first : first + 1], locations_G2).softmax(dim=-1)
        top = torch.topk(probability_1G, TOP, dim=1)
        found = locations_G2.index_select(0, top.indices[0]).tolist()
        return [([(lat, lon) for lat, lon in found], top.values[0].tolist())]

    shared: dict[str, Any] = {
        "released": released,
        "agree": _same_best,
        "turns": 3,
        "limit": reading(gallery_GD.nbytes),
        "note": "gallery embedded before; the released predict encodes it each time; limit: embeddings read once",
    }
    said = f"features over {len(gallery_GD):,} places, gallery embedded"
    return [
        compare(f"one prediction from {said}", ours=lambda: mine(1), target=1000, **shared),
        compare(
            f"{BATCH} predictions at once from {said}",
            ours=lambda: mine(BATCH),
            released_part=1 / BATCH,
            target=2000,
            **shared,
        ),
    ]


def _features(ours: Any, count: int) -> Tensor:
    """CLIP-like features, from ones the model is unsure of to ones it is sure of; the first is a middling one."""
    features_NF = queries_for(ours, released_gallery(100_000).gps_deg_G2.float(), count)
    return features_NF.roll(count // 2, dims=0)


def _same_best(mine: Best, theirs: Best) -> str:
    """The places of the images that both answered, in order, and how far the probabilities are apart."""
    worst = 0.0
    for (my_places, my_shares), (their_places, their_shares) in zip(mine, theirs, strict=False):
        apart = (torch.tensor(my_places) - torch.tensor(their_places)).abs().max()
        worst = max(worst, float((torch.tensor(my_shares) - torch.tensor(their_shares)).abs().max()))
        assert apart < 1e-5, f"places {my_places} and {their_places}"
        assert worst <= 1e-5, f"probabilities {my_shares} and {their_shares}"
    return f"the same {TOP} places in order, probabilities to {worst:.0e}"
