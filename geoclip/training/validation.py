"""Accuracy on the validation split during training, by the very function that `geoclip.evaluate` uses."""

from __future__ import annotations

import torch

from geoclip.data.batch import Batch, SkipReport
from geoclip.data.shard_index import Shard
from geoclip.data.stream import evaluation_batches
from geoclip.data.subset import Stretch
from geoclip.errors import DataError
from geoclip.evaluation.benchmark import BenchmarkResult, Predictions, embed_images, evaluate_benchmark
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.model.geoclip import GeoCLIP

BATCH = 256


class Validation:
    """The first `limit` pictures of the validation split, decoded once and kept, against a gallery.

    Args:
        shards: the validation split.
        gallery: coordinates to retrieve from.
        image_px: side of the pictures that the encoder takes.
        limit: at most so many pictures.
        device: where the model is.

    Raises:
        DataError: not one readable picture.
    """

    def __init__(
        self, shards: list[Shard], gallery: Gallery, image_px: int, limit: int, device: torch.device
    ) -> None:
        self.gallery, self.device = gallery, device
        self.skipped = SkipReport()
        self.batches: list[Batch] = []
        stretches = []
        for shard in shards:
            stretches.append(Stretch(path=shard.path, start=0, stop=min(shard.samples, limit)))
            limit -= len(stretches[-1])
        for batch in evaluation_batches([part for part in stretches if len(part)], image_px, BATCH):
            self.skipped.add(batch.skipped)
            self.batches.append(batch)
        if not any(batch.keys for batch in self.batches):
            raise DataError(f"not one readable picture in {', '.join(shard.path for shard in shards)}")

    def run(self, model: GeoCLIP) -> tuple[BenchmarkResult, Predictions]:
        """Accuracy, with one prediction per picture. Leaves the model in evaluation mode."""
        queries, _ = embed_images(model, self.batches, self.device)
        gallery_GD = encode_gallery(model.location_encoder, self.gallery, self.device)
        return evaluate_benchmark("val", queries, self.gallery, gallery_GD)
