"""The images of a benchmark, embedded, and the predictions for them."""

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

FEATURES_PER_BATCH = 2048


@dataclass(kw_only=True, slots=True)
class Queries:
    """The images of a benchmark, embedded, and where they were taken."""

    image_ND: Tensor  # unit vectors, float32; of several views, their mean
    gps_deg_N2: Tensor  # float64, as in the data
    keys: list[str]


@dataclass(kw_only=True, slots=True)
class Predictions:
    """One row per image: truth, prediction and error."""

    keys: list[str]
    gps_deg_N2: Tensor
    guess_deg_N2: Tensor
    distance_km_N: Tensor
    ceiling_km_N: Tensor  # from the truth to the nearest location of the gallery: the error of a perfect model
    score_N: Tensor  # cosine similarity
    ranking: Ranking | None = None


def require_finite(image_ND: Tensor, gallery_GD: Tensor) -> None:
    """Raise DataError unless all embeddings are finite numbers."""
    if not (image_ND.isfinite().all() and gallery_GD.isfinite().all()):
        raise DataError("this model's embeddings are not finite numbers: its training diverged; lower optim.lr")


@torch.inference_mode()
def embed_images(
    model: GeoCLIP, batches: Iterable[Batch], device: torch.device, *, total: int | None = None
) -> tuple[Queries, SkipReport]:
    """Embed every image, with a progress bar if `total` is given.

    The embedding of several views is the mean of their unit vectors. It is not normalised again, so that its cosine
    with a location is the mean of the views' cosines.

    Raises:
        DataError: no image is readable.
    """
    model.eval()
    embedded, skipped = list[Batch](), SkipReport()
    with tqdm(total=total, desc="embedding images", unit="image", disable=total is None, mininterval=0.5) as bar:
        for batch in batches:
            skipped.add(batch.skipped)
            if batch.keys:
                embedded.append(replace(batch, images=_embed(model, batch.images, device), skipped=[]))
            bar.update(len(batch.keys))
    if not embedded:
        raise DataError(f"no readable image; {'; '.join(skipped.lines())}")
    found = Batch.cat(embedded)
    return Queries(image_ND=found.images, gps_deg_N2=found.gps_deg_B2, keys=list(found.keys)), skipped


def _embed(model: GeoCLIP, images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) pixels, (B, F) features or (B, V, 3, H, W) views -> (B, D)."""
    if images.ndim != 5:
        return model.encode_image(images.to(device))
    views = [model.encode_image(view_BCHW.to(device)) for view_BCHW in images.unbind(dim=1)]
    return torch.stack(views).mean(dim=0)


@torch.inference_mode()
def embed_features(
    model: GeoCLIP, features_NF: Tensor, gps_deg_N2: Tensor, keys: list[str], device: torch.device
) -> Queries:
    """Embed images whose (N, F) backbone features are known."""
    model.eval()
    rows = [model.encode_features(part.to(device)) for part in features_NF.split(FEATURES_PER_BATCH)]
    return Queries(image_ND=torch.cat(rows), gps_deg_N2=gps_deg_N2, keys=keys)
