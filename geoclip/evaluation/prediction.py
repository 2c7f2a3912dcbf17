"""The best guesses for one picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoclip.evaluation.gallery import Gallery
from geoclip.evaluation.retrieval import gallery_probability, nearest_in_gallery
from geoclip.geo.geodesy import haversine_km


@dataclass(kw_only=True, slots=True, frozen=True)
class Guess:
    """A place of the gallery; `rank` 1 is the most similar one."""

    rank: int
    lat: float
    lon: float
    probability: float  # softmax over the whole gallery: depends on the gallery's size and density
    cosine: float
    distance_km: float | None  # from the truth, where that is known

    @property
    def map(self) -> str:
        """A link that shows the place."""
        return f"https://www.google.com/maps?q={self.lat:.6f},{self.lon:.6f}"


@torch.inference_mode()
def best_guesses(
    image_D: Tensor,
    gallery: Gallery,
    gallery_GD: Tensor,
    *,
    scale: float,
    k: int,
    truth_deg: tuple[float, float] | None = None,
) -> tuple[list[Guess], Tensor]:
    """The k best places for a picture, and the probability of every place of the gallery.

    Args:
        image_D: (D,) unit vector.
        gallery: coordinates.
        gallery_GD: (G, D) their embeddings.
        scale: exp of the model's logit scale.
        k: of a smaller gallery, all places.
        truth_deg: where the picture was taken, if that is known.

    Returns:
        Guesses, best first; (G,) probabilities on the CPU.
    """
    probability_G = gallery_probability(image_D, gallery_GD, scale)
    cosine_1k, row_1k = nearest_in_gallery(image_D[None], gallery_GD, min(k, len(gallery_GD)))
    row_k = row_1k[0].cpu()
    place_k2 = gallery.gps_deg_G2[row_k]
    distance_k = [None] * len(row_k)
    if truth_deg is not None:
        distance_k = haversine_km(place_k2, torch.tensor([truth_deg], dtype=torch.float64)).tolist()
    found = zip(
        place_k2.tolist(), probability_G[row_k].tolist(), cosine_1k[0].tolist(), distance_k, strict=True
    )
    guesses = [
        Guess(rank=rank, lat=lat, lon=lon, probability=share, cosine=cosine, distance_km=distance)
        for rank, ((lat, lon), share, cosine, distance) in enumerate(found, start=1)
    ]
    return guesses, probability_G
