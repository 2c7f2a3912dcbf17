"""Accuracy on the validation split during training: the measures of `geoclip.evaluation`."""

from __future__ import annotations

from typing import Any

import torch

from geoclip.data.batch import Batch, SkipReport
from geoclip.data.shard_index import Shard
from geoclip.data.stream import evaluation_batches
from geoclip.data.subset import Stretch
from geoclip.errors import DataError
from geoclip.evaluation.accuracy import summarise
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.geo.geodesy import haversine_km
from geoclip.model.geoclip import GeoCLIP


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
        left = limit
        for stretch in (Stretch(path=shard.path, start=0, stop=shard.samples) for shard in shards):
            stretch = Stretch(path=stretch.path, start=0, stop=min(stretch.stop, left))
            for batch in evaluation_batches([stretch], image_px, 256):
                self.skipped.add(batch.skipped)
                if batch.keys:
                    self.batches.append(batch)
            left -= len(stretch)
            if left <= 0:
                break
        if not self.batches:
            raise DataError(f"not one readable picture in {', '.join(shard.path for shard in shards)}")
        self.gps_deg_N2 = torch.cat([batch.gps_deg_B2 for batch in self.batches])

    @torch.inference_mode()
    def run(self, model: GeoCLIP) -> dict[str, Any]:
        """Accuracy within each distance in percent, median error in km, GeoScore. Leaves the model in eval mode."""
        model.eval()
        gallery_GD = encode_gallery(model.location_encoder, self.gallery, self.device)
        image_ND = torch.cat(
            [model.encode_image(batch.pixels_BCHW.to(self.device)) for batch in self.batches]
        )
        _, index_N1 = nearest_in_gallery(image_ND, gallery_GD, 1)
        guess_deg_N2 = self.gallery.gps_deg_G2[index_N1[:, 0].cpu()]
        accuracy = summarise(haversine_km(guess_deg_N2, self.gps_deg_N2).numpy(), 0)
        return {
            "accuracy_percent": {str(km): interval.value for km, interval in accuracy.percent.items()},
            "median_km": accuracy.median_km.value,
            "mean_km": accuracy.mean_km,
            "geoscore": accuracy.geoscore.value,
        }

    @staticmethod
    def sentence(values: dict[str, Any]) -> str:
        """One line for the log."""
        shares = ", ".join(f"{share:.1f} % < {km} km" for km, share in values["accuracy_percent"].items())
        return f"{shares}; median {values['median_km']:,.0f} km, GeoScore {values['geoscore']:,.0f}"
