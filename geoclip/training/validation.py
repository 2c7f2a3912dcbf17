"""Accuracy on the validation split during training, by the very function that `geoclip.evaluate` uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from geoclip.data.account import Account
from geoclip.data.batch import Batch
from geoclip.data.decoding import Decoder
from geoclip.data.shard_list import Shard
from geoclip.data.stream import evaluation_batches
from geoclip.data.subset import whole
from geoclip.errors import DataError
from geoclip.evaluation.benchmark import BenchmarkResult, evaluate_benchmark
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.evaluation.images import Predictions, embed_images
from geoclip.model.geoclip import GeoCLIP

BATCH = 256


class Interrupted(Exception):
    """The validation was left half-way."""


class Validation:
    """The first `limit` pictures of the validation split, decoded once and kept, against a gallery.

    Args:
        shards: the validation split.
        gallery: coordinates to retrieve from.
        decoder: makes what the encoder takes, without augmentation.
        limit: at most so many pictures.
        device: where the model is.
        protocol: of distances, sphere or released.

    Raises:
        DataError: not one readable picture.
    """

    def __init__(
        self,
        shards: list[Shard],
        gallery: Gallery,
        decoder: Decoder,
        limit: int,
        device: torch.device,
        protocol: str = "sphere",
    ) -> None:
        self.gallery, self.device, self.protocol = gallery, device, protocol
        self.account = Account(what="validation", used=0, unit="pictures")
        self.batches: list[Batch] = []
        for batch in evaluation_batches(whole(shards, limit), decoder, BATCH):
            self.account.used += len(batch.keys)
            self.account.skipped.add(batch.skipped)
            self.batches.append(batch)
        if not any(batch.keys for batch in self.batches):
            raise DataError(f"not one readable picture in {', '.join(shard.path for shard in shards)}")

    def run(
        self, model: GeoCLIP, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[BenchmarkResult, Predictions]:
        """Accuracy, with one prediction per picture. Leaves the model in evaluation mode.

        Raises:
            Interrupted: `interrupted` said so, between two batches.
        """

        def batches() -> Iterator[Batch]:
            for batch in self.batches:
                if interrupted():
                    raise Interrupted
                yield batch

        queries, _ = embed_images(model, batches(), self.device)
        gallery_GD = encode_gallery(model.location_encoder, self.gallery, self.device)
        return evaluate_benchmark("val", queries, self.gallery, gallery_GD, protocol=self.protocol)
