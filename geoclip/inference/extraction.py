"""Features of a frozen encoder for a split: one shard of features for each shard of pictures."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Never

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport, decode_batch, only_present
from geoclip.data.features import ViewsDecoder, as_npy
from geoclip.data.shard_index import OpenShard, open_index
from geoclip.data.shards import Shard
from geoclip.data.transforms import jitter_colors
from geoclip.data.workers import LIMIT, TIMEOUT_S, note, read_in_processes
from geoclip.distributed import World
from geoclip.errors import DataError
from geoclip.model.image_encoder import ImageEncoder
from geoclip.prepare.shard_writing import distinct_key, record_shard, write_index, write_tar


class _Views(Dataset[tuple[int, Batch]]):
    """The chunks of all shards in order: the shard's number, and its pictures, decoded into all views."""

    def __init__(self, shards: list[Shard], decoder: ViewsDecoder, chunk: int) -> None:
        self.shards, self.decoder, self.chunk = shards, decoder, chunk
        self.chunks = [
            (number, start)
            for number, shard in enumerate(shards)
            for start in range(0, max(1, shard.samples), chunk)  # an empty shard has one chunk, so that it is written
        ]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, row: int) -> tuple[int, Batch]:
        number, start = self.chunks[row]
        note(self.shards[number].path, start)
        shard = OpenShard(self.shards[number].path)
        positions = range(start, min(self.shards[number].samples, start + self.chunk))
        samples = [shard.read(position) for position in positions]
        return number, only_present(decode_batch(samples, self.decoder, torch.float64))


def extract_features(
    encoder: ImageEncoder,
    shards: list[Shard],
    folder: Path,
    decoder: ViewsDecoder,
    *,
    world: World,
    workers: int,
    batch_size: int,
    precision: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    timeout_s: float = TIMEOUT_S,
) -> SkipReport:
    """Write this rank's share of a split's feature shards, except those that exist.

    Args:
        encoder: on its device, in evaluation mode.
        shards: of pictures; this rank has shard k if k % world.size == world.rank.
        folder: of the split's features.
        decoder: of the views.
        world: rank, size, device.
        workers: processes that decode; 0 decodes in this one.
        batch_size: pictures at a time, each in all its views.
        precision: the context that the encoder runs in.
        timeout_s: a process without progress for so long ends the extraction.

    Returns:
        The unreadable pictures.

    Raises:
        DataError: features that float16 cannot represent, or a process that failed or was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    skipped = SkipReport()
    share = shards[world.rank :: world.size]
    left = [shard for shard in share if not (folder / Path(shard.path).name).is_file()]
    total, to_do = (sum(shard.samples for shard in some) for some in (share, left))
    title = f"features of {folder.name}"
    with tqdm(total=total, initial=total - to_do, desc=title, unit="image", disable=not world.is_main) as bar:
        views = _Views(left, decoder, batch_size)
        batches = read_in_processes(views, count=len(views), workers=workers, timeout_s=timeout_s, limited_by=LIMIT)
        with contextlib.closing(batches):
            encoded = _encoded(encoder, batches, world.device, precision, skipped, bar)
            for number, samples in itertools.groupby(encoded, key=lambda one: one[0]):
                written = set[str]()
                named = (  # the json contains the original key
                    sample | {"__key__": distinct_key(sample["__key__"].replace(".", "_"), written)}
                    for _, rows in samples
                    for sample in rows
                )
                write_tar(folder / Path(left[number].path).name, named)
    return skipped


def close_split(folder: Path, shards: list[Shard]) -> int:
    """Write index.json, which marks a split as complete, once every rank has written its share. Returns the samples."""
    paths = [folder / Path(shard.path).name for shard in shards]
    return write_index(folder, folder.name, [record_shard(path, len(open_index(path))) for path in paths])


def _encoded(
    encoder: ImageEncoder,
    batches: Iterable[tuple[int, Batch]],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[None]],
    skipped: SkipReport,
    bar: tqdm[Never],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The samples of each chunk and the number of its shard, copied from the device during the next chunk."""
    pending: list[tuple[int, Batch, Tensor, torch.cuda.Event | None]] = []
    for number, batch in batches:
        skipped.add(batch.skipped)
        pending.append((number, batch, *_features(encoder, batch, device, precision)))
        if len(pending) > 1:
            yield _samples(*pending.pop(0))
        bar.update(len(batch.keys) + len(batch.skipped))
    yield from (_samples(*one) for one in pending)


@torch.inference_mode()
def _features(
    encoder: ImageEncoder, batch: Batch, device: torch.device, precision: Callable[[], AbstractContextManager[None]]
) -> tuple[Tensor, torch.cuda.Event | None]:
    """(B, 1 + V, F) float16 on the CPU, complete after the event (GPU only): all views of all pictures in one pass."""
    if not batch.keys:
        return torch.empty((0, 1, encoder.feature_dim), dtype=torch.float16), None
    here = batch.to(device)
    pixels = here.images.flatten(0, 1)
    if here.color_BK is not None:
        pixels = jitter_colors(pixels, here.color_BK.flatten(0, 1))
    with precision():
        features = encoder.features(pixels)
    halves = features.half().view(len(batch.keys), -1, features.shape[-1])
    if device.type != "cuda":
        return halves, None
    host = torch.empty(halves.shape, dtype=halves.dtype, pin_memory=True)
    host.copy_(halves, non_blocking=True)
    return host, torch.cuda.current_stream(device).record_event()


def _samples(
    number: int, batch: Batch, halves_BVF: Tensor, copied: torch.cuda.Event | None
) -> tuple[int, list[dict[str, Any]]]:
    """The samples of a chunk, as in a feature shard; DataError if float16 cannot represent the features."""
    if copied is not None:
        copied.synchronize()
    if not halves_BVF.isfinite().all():
        raise DataError("this encoder's features are not finite in float16; did its training diverge?")
    samples = []
    for key, (lat, lon), features_VF in zip(batch.keys, batch.gps_deg_B2.tolist(), halves_BVF.numpy(), strict=True):
        location = json.dumps({"key": key, "lat": lat, "lon": lon}).encode()
        samples.append({"__key__": key, "npy": as_npy(features_VF), "json": location})
    return number, samples
