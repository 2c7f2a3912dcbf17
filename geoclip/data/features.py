"""Features of a frozen encoder, in shards: written once, trained on through the very stream that pictures take.

FOLDER/features.json; FOLDER/{train,val,…}/NAME.tar … index.json; in each tar KEY.npy, KEY.json
KEY.npy is (1 + V, F) float16: the evaluation view, then the views that epochs 0 … V-1 would see.
"""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from geoclip.data.batch import Color, PictureDecoder, Sample
from geoclip.data.shards import all_samples, read_shards
from geoclip.data.stream import evaluation_batches
from geoclip.data.transforms import NO_COLOR, evaluation_pixels_of
from geoclip.errors import DataError
from geoclip.runs.run_dir import write_json

RECORD = "features.json"


class ViewsDecoder(PictureDecoder):
    """Every view of a picture, (1 + V, 3, size, size): what evaluation sees, then what epochs 0 … V-1 see."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (1 + self.views, *self.preprocessing.shape)

    @property
    def no_color(self) -> Color:
        """The draws that change nothing, where colours change at all."""
        return np.tile(NO_COLOR, (1 + self.views, 1)) if self.augmentation.changes_color else None

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], Color]:
        """Pixels of every view, and their colour draws where colours change."""
        seen = [self.view(sample, number) for number in range(self.views)]
        pixels = [evaluation_pixels_of(sample.data, self.preprocessing), *(pixels for pixels, _ in seen)]
        colors = [NO_COLOR, *(color for _, color in seen if color is not None)]
        return np.stack(pixels), np.stack(colors) if self.augmentation.changes_color else None


@dataclass(kw_only=True, slots=True, frozen=True)
class FeatureDecoder:
    """One view's features (F,) float16: in training that of the sample's epoch, in evaluation the evaluation view.

    With several `at_once`, (P, F): the views of a picture in one step.
    """

    dtype: ClassVar[DTypeLike] = np.float16
    no_color: ClassVar[None] = None  # colours were changed before the features were taken
    feature_dim: int
    views: int
    training: bool = False
    at_once: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.feature_dim,) if self.at_once == 1 else (self.at_once, self.feature_dim)

    def __call__(self, sample: Sample) -> tuple[NDArray[np.float16], None]:
        """The features of one view, or of those that a step sees together.

        Raises:
            ValueError: not a .npy of this many views and numbers.
        """
        views_VF = self._views(sample)
        if not (self.training and self.views):
            chosen = [0]
        else:
            chosen = [1 + (sample.epoch * self.at_once + view) % self.views for view in range(self.at_once)]
        return views_VF[chosen[0]] if self.at_once == 1 else views_VF[chosen], None

    def all_views(self, sample: Sample) -> NDArray[np.float16]:
        """(V, F) the views that training chooses from: the augmented ones, or where there are none the only one.

        Raises:
            ValueError: not a .npy of this many views and numbers.
        """
        views_VF = self._views(sample)
        return views_VF[1:] if self.views else views_VF

    def _views(self, sample: Sample) -> NDArray[np.float16]:
        header = _npy_header((1 + self.views, self.feature_dim))
        count = (1 + self.views) * self.feature_dim
        if not sample.data.startswith(header) or len(sample.data) != len(header) + 2 * count:
            raise ValueError("features of another shape")
        found = np.frombuffer(sample.data, dtype="<f2", count=count, offset=len(header))
        return found.reshape(1 + self.views, self.feature_dim)


def as_npy(features_VF: NDArray[np.float16]) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, features_VF.astype("<f2"), allow_pickle=False)
    return file.getvalue()


@functools.lru_cache
def _npy_header(shape: tuple[int, int]) -> bytes:
    """What a .npy of this shape begins with: comparing it is cheaper than parsing one per sample."""
    return as_npy(np.zeros(shape, dtype=np.float16))[: -2 * shape[0] * shape[1]]


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """features.json: whose features these are."""
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Whose features these are.

    Raises:
        DataError: not a folder that `geoclip.features` wrote.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} has no readable {RECORD} ({error}); python -m geoclip.features writes such folders"
        ) from error
    return record


def require_features(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder of features, if it is of this encoder, transform and data set.

    Args:
        folder: what `geoclip.features` wrote.
        wanted: some of what a record holds, nested alike; None for what cannot be told.

    Raises:
        DataError: they differ; every key is named with both values.
    """
    record = read_record(folder)
    found = [
        f"{part}.{key} is {record.get(part, {}).get(key)!r} there, {value!r} here"
        for part, values in wanted.items()
        for key, value in values.items()
        if value is not None and record.get(part, {}).get(key) != value
    ]
    if found:
        raise DataError(
            f"the features in {folder} are of something else: {'; '.join(found)}; ask for what they were made with, or "
            "make others: python -m geoclip.features"
        )
    return record


def read_feature_split(split: Path, feature_dim: int, encoder: dict[str, Any]) -> tuple[Tensor, Tensor, list[str]]:
    """The evaluation view's features of a whole split: (N, F) float32, (N, 2) degrees float64, keys.

    Args:
        split: a folder below what `geoclip.features` wrote.
        feature_dim: F of the model.
        encoder: the model's, as `build.encoder_identity` describes it.

    Raises:
        DataError: features of another encoder, or none.
    """
    record = require_features(split.parent, {"encoder": encoder})
    decoder = FeatureDecoder(feature_dim=feature_dim, views=record["views"])
    batches = list(evaluation_batches(all_samples(read_shards(str(split.parent), split.name)), decoder, 4096))
    if not any(batch.keys for batch in batches):
        raise DataError(f"{split} holds no features")
    return (
        torch.cat([batch.images for batch in batches]).float(),
        torch.cat([batch.gps_deg_B2 for batch in batches]),
        [key for batch in batches for key in batch.keys],
    )
