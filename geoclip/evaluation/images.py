"""The images of a benchmark: embedded once, and what was predicted of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport
from geoclip.errors import DataError
from geoclip.evaluation.retrieval import Ranking
from geoclip.model.geoclip import GeoCLIP

VIEWS_NDIM = 5  # of a batch of pictures in several views each


@dataclass(kw_only=True, slots=True)
class Queries:
    """The images of a benchmark, embedded, and where they were taken."""

    image_ND: Tensor  # unit vectors, float32; of several views, their mean
    gps_deg_N2: Tensor  # float64, as the data have them
    keys: list[str]


@dataclass(kw_only=True, slots=True)
class Predictions:
    """One row per image: truth, the best place of the gallery, and how far off it is."""

    keys: list[str]
    gps_deg_N2: Tensor
    guess_deg_N2: Tensor
    distance_km_N: Tensor
    ceiling_km_N: Tensor  # distance of the gallery's nearest place: what a perfect model would miss by
    score_N: Tensor  # cosine similarity
    ranking: Ranking | None = None  # where it was asked for


@torch.inference_mode()
def embed_images(
    model: GeoCLIP, batches: Iterable[Batch], device: torch.device, *, total: int | None = None
) -> tuple[Queries, SkipReport]:
    """Embed every image once, or in all its views.

    Of several views the embedding is the mean of their unit vectors, which is not normalised again: its cosine with
    a place's embedding is then the mean of the views' cosines.

    Raises:
        DataError: not one readable image.
    """
    model.eval()
    embedded, skipped = list[Batch](), SkipReport()
    with tqdm(total=total, desc="embedding images", unit="image", disable=total is None, mininterval=0.5) as bar:
        for batch in batches:
            skipped.add(batch.skipped)
            if batch.keys:
                embedded.append(replace(batch, images=_embedded(model, batch.images, device), skipped=[]))
            bar.update(len(batch.keys))
    if not embedded:
        raise DataError(f"not one readable image; {'; '.join(skipped.lines())}")
    found = Batch.cat(embedded)
    return Queries(image_ND=found.images, gps_deg_N2=found.gps_deg_B2, keys=list(found.keys)), skipped


def _embedded(model: GeoCLIP, images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) pixels, (B, F) features or (B, V, 3, H, W) views -> (B, D); of views one after the other."""
    if images.ndim != VIEWS_NDIM:
        return model.encode_image(images.to(device))
    views = [model.encode_image(view_BCHW.to(device)) for view_BCHW in images.unbind(dim=1)]
    return torch.stack(views).mean(dim=0)


@torch.inference_mode()
def embed_features(
    model: GeoCLIP, features_NF: Tensor, gps_deg_N2: Tensor, keys: list[str], device: torch.device
) -> Queries:
    """Queries from features of the backbone, computed before."""
    model.eval()
    rows = [model.encode_features(part.to(device)) for part in features_NF.split(2048)]
    return Queries(image_ND=torch.cat(rows), gps_deg_N2=gps_deg_N2, keys=keys)
