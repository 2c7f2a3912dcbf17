"""Run a frozen encoder once over a split and keep what it says: shards of features, one for each shard of pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport
from geoclip.data.building.shard_writing import write_index, write_tar
from geoclip.data.color import jitter_colors
from geoclip.data.decoding import decode_batch, only_present
from geoclip.data.feature_shards import ViewsDecoder, as_npy
from geoclip.data.reading import OpenShard
from geoclip.data.shard_index import open_index
from geoclip.data.shard_list import Shard
from geoclip.data.workers import LIMIT, TIMEOUT_S, note, read_in_processes
from geoclip.distributed import World
from geoclip.errors import DataError
from geoclip.model.image_encoder import ImageEncoder


class _Views(Dataset[Batch]):
    """Chunks of a shard, each picture decoded into all its views."""

    def __init__(self, path: str, decoder: ViewsDecoder, chunk: int) -> None:
        self.path, self.decoder, self.chunk = path, decoder, chunk
        self.samples = len(open_index(path))

    def __len__(self) -> int:
        return -(-self.samples // self.chunk)

    def __getitem__(self, number: int) -> Batch:
        note(self.path, number * self.chunk)
        shard = OpenShard(self.path)
        positions = range(number * self.chunk, min(self.samples, (number + 1) * self.chunk))
        return only_present(
            decode_batch([shard.read(position) for position in positions], self.decoder, torch.float64)
        )


def extract_features(
    encoder: ImageEncoder,
    shards: list[Shard],
    folder: Path,
    decoder: ViewsDecoder,
    *,
    world: World,
    workers: int,
    batch_size: int,
    autocast: torch.dtype | None = None,
    timeout_s: float = TIMEOUT_S,
) -> SkipReport:
    """Write this rank's share of a split's feature shards; those that stand already are left alone.

    Args:
        encoder: on its device, in evaluation mode.
        shards: the pictures; shard k is this rank's where k % world.size == world.rank.
        folder: of the split's features.
        decoder: which views.
        world: rank, size, device.
        workers: processes that decode; 0 decodes here.
        batch_size: pictures decoded and encoded at a time, each in all its views.
        autocast: type of the encoder's matrix products.
        timeout_s: a process that makes no progress for so long ends the extraction.

    Returns:
        What could not be read.

    Raises:
        DataError: features that float16 cannot hold; or a process failed, was killed or stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    skipped = SkipReport()
    mine = shards[world.rank :: world.size]
    left = [shard for shard in mine if not (folder / Path(shard.path).name).is_file()]
    total, done = (
        sum(shard.samples for shard in mine),
        sum(shard.samples for shard in mine if shard not in left),
    )
    with tqdm(
        total=total, initial=done, desc=f"features of {folder.name}", unit="image", disable=not world.is_main
    ) as bar:
        for shard in left:
            views = _Views(shard.path, decoder, batch_size)
            batches = read_in_processes(
                views, count=len(views), workers=workers, timeout_s=timeout_s, limited_by=LIMIT
            )
            with contextlib.closing(batches):
                samples = _encoded(encoder, batches, world.device, autocast, skipped, bar)
                write_tar(folder / Path(shard.path).name, samples)
    return skipped


def close_split(folder: Path, shards: list[Shard]) -> int:
    """Once every rank has written its share: index.json, by which a split is known to be whole. Returns its samples."""
    paths = [folder / Path(shard.path).name for shard in shards]
    return write_index(folder, folder.name, [(path, len(open_index(path))) for path in paths])


@torch.inference_mode()
def _encoded(
    encoder: ImageEncoder,
    batches: Iterator[Batch],
    device: torch.device,
    autocast: torch.dtype | None,
    skipped: SkipReport,
    bar: tqdm[Never],
) -> Iterator[dict[str, Any]]:
    """Samples of a feature shard, in the pictures' order."""
    for batch in batches:
        skipped.add(batch.skipped)
        bar.update(len(batch.keys) + len(batch.skipped))
        if not batch.keys:
            continue
        features_BVF = _features(encoder, batch, device, autocast)
        for key, (lat, lon), features_VF in zip(
            batch.keys, batch.gps_deg_B2.tolist(), features_BVF, strict=True
        ):
            place = json.dumps({"key": key, "lat": lat, "lon": lon}).encode()
            yield {"__key__": key, "npy": as_npy(features_VF), "json": place}


def _features(
    encoder: ImageEncoder, batch: Batch, device: torch.device, autocast: torch.dtype | None
) -> np.ndarray[Any, np.dtype[np.float16]]:
    """(B, 1 + V, F): all views of all pictures in one pass."""
    pixels: Tensor = batch.images.to(device, non_blocking=True).flatten(0, 1)
    if batch.color_BK is not None:
        pixels = jitter_colors(pixels, batch.color_BK.to(device, non_blocking=True).flatten(0, 1))
    context = contextlib.nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
    with context:
        features = encoder.features(pixels)
    halves = features.half()
    if not halves.isfinite().all():
        raise DataError("this encoder's features do not fit 16 bits; is it a diverged checkpoint?")
    return halves.view(len(batch.keys), -1, halves.shape[-1]).cpu().numpy()
