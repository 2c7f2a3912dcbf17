"""Features of a frozen encoder, in shards: computed once, and read by the same stream as pictures.

FOLDER/features.json; FOLDER/{train,val,…}/NAME.tar … index.json; in each tar KEY.npy, KEY.json
KEY.npy is (1 + V, F) float16: the evaluation view, then the training views of epochs 0 … V-1.
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
    """Every view of a picture, (1 + V, 3, size, size): that of evaluation, then those of epochs 0 … V-1."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (1 + self.views, *self.preprocessing.shape)

    @property
    def no_color(self) -> Color:
        """The draws that change nothing; None if colours never change."""
        return np.tile(NO_COLOR, (1 + self.views, 1)) if self.augmentation.changes_color else None

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], Color]:
        """Pixels of every view, and their colour draws if colours change."""
        views = [self.view(sample, number) for number in range(self.views)]
        pixels = [evaluation_pixels_of(sample.data, self.preprocessing), *(pixels for pixels, _ in views)]
        colors = [NO_COLOR, *(color for _, color in views if color is not None)]
        return np.stack(pixels), np.stack(colors) if self.augmentation.changes_color else None


@dataclass(kw_only=True, slots=True, frozen=True)
class FeatureDecoder:
    """One view's features (F,) float16: that of the sample's epoch in training, else the evaluation view.

    With several `at_once`, (P, F): the views of a picture in one step.
    """

    dtype: ClassVar[DTypeLike] = np.float16
    no_color: ClassVar[None] = None  # colours were changed before the encoder
    feature_dim: int
    views: int
    training: bool = False
    at_once: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.feature_dim,) if self.at_once == 1 else (self.at_once, self.feature_dim)

    def __call__(self, sample: Sample) -> tuple[NDArray[np.float16], None]:
        """The features of one view, or of `at_once` views. Raises ValueError: not a .npy of this shape."""
        views_VF = self._views(sample)
        if not (self.training and self.views):
            chosen = [0]
        else:
            chosen = [1 + (sample.epoch * self.at_once + view) % self.views for view in range(self.at_once)]
        return views_VF[chosen[0]] if self.at_once == 1 else views_VF[chosen], None

    def all_views(self, sample: Sample) -> NDArray[np.float16]:
        """(V, F) the views of training: the augmented ones, else the evaluation view. Raises as `__call__`."""
        views_VF = self._views(sample)
        return views_VF[1:] if self.views else views_VF

    def _views(self, sample: Sample) -> NDArray[np.float16]:
        header = _npy_header((1 + self.views, self.feature_dim))
        count = (1 + self.views) * self.feature_dim
        if not sample.data.startswith(header) or len(sample.data) != len(header) + 2 * count:
            raise ValueError("features of another shape")
        views = np.frombuffer(sample.data, dtype="<f2", count=count, offset=len(header))
        return views.reshape(1 + self.views, self.feature_dim)


def as_npy(features_VF: NDArray[np.float16]) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, features_VF.astype("<f2"), allow_pickle=False)
    return file.getvalue()


@functools.lru_cache
def _npy_header(shape: tuple[int, int]) -> bytes:
    """The header of a .npy of this shape: comparing it is cheaper than parsing the header of every sample."""
    return as_npy(np.zeros(shape, dtype=np.float16))[: -2 * shape[0] * shape[1]]


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write features.json: encoder, transform and data set of the features."""
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """The content of features.json. Raises DataError: not a folder that `geoclip.features` wrote."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} has no readable {RECORD} ({error}); python -m geoclip.features writes such folders"
        ) from error
    return record


def require_features(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder of features; encoder, transform and data set must be the wanted ones.

    Args:
        folder: written by `geoclip.features`.
        wanted: parts of a record; None for unknown values.

    Raises:
        DataError: they differ; the message has every key with both values.
    """
    record = read_record(folder)
    differences = [
        f"{part}.{key} is {record.get(part, {}).get(key)!r} there, {value!r} here"
        for part, values in wanted.items()
        for key, value in values.items()
        if value is not None and record.get(part, {}).get(key) != value
    ]
    if differences:
        raise DataError(
            f"the features in {folder} do not fit: {'; '.join(differences)}; use the values they were made with, or "
            "make new features: python -m geoclip.features"
        )
    return record


def read_feature_split(split: Path, feature_dim: int, encoder: dict[str, Any]) -> tuple[Tensor, Tensor, list[str]]:
    """The evaluation view's features of a complete split: (N, F) float32, (N, 2) degrees float64, keys.

    Args:
        split: a folder in a folder that `geoclip.features` wrote.
        feature_dim: F of the model.
        encoder: the part `encoder` of the model's record.

    Raises:
        DataError: features of another encoder, or none.
    """
    record = require_features(split.parent, {"encoder": encoder})
    decoder = FeatureDecoder(feature_dim=feature_dim, views=record["views"])
    batches = list(evaluation_batches(all_samples(read_shards(str(split.parent), split.name)), decoder, 4096))
    if not any(batch.keys for batch in batches):
        raise DataError(f"{split} contains no features")
    return (
        torch.cat([batch.images for batch in batches]).float(),
        torch.cat([batch.gps_deg_B2 for batch in batches]),
        [key for batch in batches for key in batch.keys],
    )
