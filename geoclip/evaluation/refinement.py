"""From the gallery's places to any place on Earth: the location encoder is asked about ever finer grids."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.geo.geodesy import EARTH_RADIUS_KM, destination

HALF = 4  # the grid has 2 · HALF + 1 places a side, and the next one is so many times finer


@torch.inference_mode()
def refine_places(
    image_ND: Tensor,
    start_deg_NK2: Tensor,
    encode_location: Callable[[Tensor], Tensor],
    *,
    reach_km_NK: Tensor,
    step_m: float,
) -> tuple[Tensor, Tensor]:
    """Climb from each of a picture's places to the most similar place around it.

    A square grid around the place so far, then one around its best point with a quarter of the spacing, until the
    spacing is `step_m`. The similarity never falls, as each grid holds the place that it is around. What is found is a
    local maximum of the model's similarity; how much of it is knowledge, the finest scale's sigma decides.

    Args:
        image_ND: (N, D) unit vectors.
        start_deg_NK2: (N, K, 2) latitude, longitude in degrees.
        encode_location: (M, 2) degrees -> (M, D) embeddings.
        reach_km_NK: (N, K) half the first grid's side.
        step_m: spacing of the last grid, in metres.

    Returns:
        (N, K, 2) places in degrees, float64, and (N, K) their cosine similarities.
    """
    count, guesses = start_deg_NK2.shape[:2]
    place_M2 = start_deg_NK2.reshape(-1, 2).double()
    image_MD = image_ND.repeat_interleave(guesses, dim=0)
    spacing_km_M = reach_km_NK.reshape(-1).double() / HALF
    best_M = torch.full((len(place_M2),), -math.inf)
    coarsest_m = 1000 * float(spacing_km_M.max()) if len(spacing_km_M) else step_m
    levels = max(1, math.ceil(math.log(max(coarsest_m / step_m, 1), HALF)) + 1)
    offset = torch.arange(-HALF, HALF + 1, dtype=torch.float64)
    east_P, north_P = (one.reshape(-1) for one in torch.meshgrid(offset, offset, indexing="xy"))
    distance_P, azimuth_P = (east_P**2 + north_P**2).sqrt(), torch.atan2(east_P, north_P)
    for _ in range(levels):
        arc_MP = spacing_km_M[:, None] * distance_P / EARTH_RADIUS_KM
        around = destination(
            place_M2.repeat_interleave(len(distance_P), dim=0), arc_MP.reshape(-1), azimuth_P.repeat(len(place_M2))
        ).view(len(place_M2), -1, 2)
        asked = around.reshape(-1, 2).float().to(image_ND.device)
        embedded = torch.cat([F.normalize(encode_location(part).float(), dim=1) for part in asked.split(2048)])
        cosine_MP = torch.einsum("md,mpd->mp", image_MD, embedded.view(len(place_M2), len(distance_P), -1)).cpu()
        best_M, point_M = cosine_MP.max(dim=1)
        place_M2 = around[torch.arange(len(place_M2)), point_M]
        spacing_km_M = (spacing_km_M / HALF).clamp(min=step_m / 1000)
    return place_M2.view(count, guesses, 2), best_M.view(count, guesses)
