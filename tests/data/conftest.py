"""A small stream, and who reads it; photographs to build shards from, and what is in shards."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoclip import shards
from geoclip.config import ShardsConfig, ShardSource, shards_problems, shards_root
from geoclip.data.batch import Batch, PictureDecoder
from geoclip.data.shard_list import read_shards
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.subset import take_fraction
from geoclip.data.transforms import Augmentation, Preprocessing


@pytest.fixture
def plan_of() -> Callable[..., StreamPlan]:
    """A plan over the shards at `root`; four streams, batches of eight."""

    def plan(root: Path, *, fraction: float = 1.0, seed: int = 0, **changes: Any) -> StreamPlan:
        return StreamPlan(
            subset=take_fraction(read_shards(str(root), "train"), fraction, seed),
            streams=changes.get("streams", 4),
            batch_size=changes.get("batch_size", 8),
            shuffle_buffer=changes.get("shuffle_buffer", 10),
            seed=seed,
            decoder=PictureDecoder(
                preprocessing=Preprocessing(image_px=changes.get("image_px", 16)),
                augmentation=changes.get("augmentation", Augmentation()),
                seed=seed,
            ),
        )

    return plan


@pytest.fixture
def batches_of() -> Callable[..., list[Batch]]:
    """The batches of one rank from step `first` to `last`."""

    def batches(
        plan: StreamPlan, *, rank: int = 0, ranks: int = 1, workers: int = 0, first: int = 0, last: int = 12
    ) -> list[Batch]:
        return list(train_batches(plan, rank=rank, world_size=ranks, workers=workers, first_step=first, last_step=last))

    return batches


@pytest.fixture
def global_keys(batches_of: Callable[..., list[Batch]]) -> Callable[..., list[list[str]]]:
    """Keys of every global batch: the ranks' batches side by side."""

    def keys(plan: StreamPlan, *, ranks: int = 1, **how: int) -> list[list[str]]:
        parts = [[batch.keys for batch in batches_of(plan, rank=rank, ranks=ranks, **how)] for rank in range(ranks)]
        return [[key for keys in step for key in keys] for step in zip(*parts, strict=True)]

    return keys


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """A picture of noise, the same for the same seed, as the bytes of a file."""

    def photo(seed: int = 0, size_px: tuple[int, int] = (24, 16), kind: str = "JPEG", **how: Any) -> bytes:
        rows, columns = size_px[1], size_px[0]
        noise = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, kind, **how)
        return file.getvalue()

    return photo


@pytest.fixture
def photo_table(tmp_path: Path, photo: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes photos/metadata.csv (IMG_ID, LAT, LON, city) and photos/00.jpg …: `photo_table(20)`. Returns the CSV."""

    def write(count: int, folder: str = "photos", **how: Any) -> Path:
        table = tmp_path / folder / "metadata.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("IMG_ID", "LAT", "LON", "city"))
            for number in range(count):
                name = f"{number:02d}.jpg"
                (table.parent / name).write_bytes(photo(number, **how))
                writer.writerow((name, 1 + number / 10, -1 - number / 10, f"city {number}"))
        return table

    return write


@pytest.fixture
def samples_in() -> Callable[..., dict[str, tuple[dict[str, Any], str, bytes]]]:
    """What the tars of a folder hold, in order: by key the json, the picture's suffix and its bytes."""

    def read(folder: Path) -> dict[str, tuple[dict[str, Any], str, bytes]]:
        found = {}
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
            for name in files:
                key, suffix = name.rsplit(".", 1)
                if suffix != "json":
                    found[key] = (json.loads(files[f"{key}.json"]), suffix, files[name])
        return found

    return read


@pytest.fixture
def build() -> Callable[..., bool]:
    """As the command builds shards, in this process unless `workers` are asked for: `build(root, input=…)`."""

    def build(root: Path, **settings: Any) -> bool:
        usual: dict[str, Any] = {"source": ShardSource.csv, "root": str(root), "workers": 1}
        config = ShardsConfig(**(usual | settings))
        assert shards_problems(config) == []
        return shards.build(config, Path(shards_root(config)))

    return build


@pytest.fixture
def rejected_in() -> Callable[[Path], list[tuple[str, str, str]]]:
    """Line, key and reason of every row in a root's rejected.csv."""

    def read(root: Path) -> list[tuple[str, str, str]]:
        with (root / "rejected.csv").open(newline="") as file:
            return [(row["line"], row["key"], row["reason"]) for row in csv.DictReader(file)]

    return read
