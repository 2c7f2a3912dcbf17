"""From a configuration to the shards that are read: shared by training and feature extraction."""

from __future__ import annotations

import logging
from pathlib import Path

from geoclip.build import build_blue_marble_data, encoder_identity, transform_identity
from geoclip.config import DataConfig, DataKind, EncoderConfig
from geoclip.data.feature_shards import require_features
from geoclip.data.shard_index import open_indices
from geoclip.data.shard_list import (
    Shard,
    count_samples,
    find_shards,
    fingerprint,
    read_shards,
    refuse_bad_shards,
    refuse_skipped_shards,
)
from geoclip.distributed import World, wait_for_all
from geoclip.errors import DataError

log = logging.getLogger("geoclip")


def open_shards(data: DataConfig, encoder: EncoderConfig, world: World) -> dict[str, list[Shard]]:
    """Training and validation shards: of pictures, or of the encoder's features where it names some.

    Raises:
        DataError: no shards, features of something else, or more than data.max_bad_fraction cannot be used.
    """
    _build_on_first_use(data, world)
    if encoder.features:
        require_features_of(data, encoder)
        return _open(encoder.features, {"train": "train", "val": "val"}, data.max_bad_fraction, world)
    return open_splits(data, ["train", "val"], world)


def open_splits(data: DataConfig, splits: list[str], world: World) -> dict[str, list[Shard]]:
    """The shards of these splits; `train` and `val` are what data.train and data.val say, others folders of data.root.

    Raises:
        DataError: no shards, or more than data.max_bad_fraction of what they hold cannot be used.
    """
    _build_on_first_use(data, world)
    patterns = {"train": data.train, "val": data.val}
    return _open(data.root, {split: patterns.get(split, split) for split in splits}, data.max_bad_fraction, world)


def _build_on_first_use(data: DataConfig, world: World) -> None:
    """The embedded default's shards, by rank 0."""
    if data.kind is DataKind.bluemarble:
        if world.is_main:
            build_blue_marble_data(data.root, data.bluemarble)
        wait_for_all()


def _open(root: str, patterns: dict[str, str], max_bad_fraction: float, world: World) -> dict[str, list[Shard]]:
    files = {split: find_shards(root, pattern) for split, pattern in patterns.items()}
    for of_split in files.values():
        refuse_skipped_shards(of_split, max_bad_fraction, "data.max_bad_fraction")
        if world.is_main:
            of_split.account.log()
    paths = [path for of_split in files.values() for path in of_split.paths]
    open_indices(paths[world.rank :: world.size])  # should headers have to be read, each rank reads its part
    wait_for_all()
    found = {split: count_samples(of_split.paths) for split, of_split in files.items()}
    for split, shards in found.items():
        account = refuse_bad_shards(shards, max_bad_fraction, files[split].what)
        if world.is_main:
            account.log()
    return found


def require_features_of(data: DataConfig, encoder: EncoderConfig) -> None:
    """Refuse features of another encoder, transform or data set; the pictures themselves need not be there.

    Raises:
        DataError: they differ, or a split was not written to its end.
    """
    folder, wanted_data = Path(encoder.features), {"name": data.name}
    for split, pattern in (("train", data.train), ("val", data.val)):
        if not (folder / split / "index.json").is_file():
            raise DataError(
                f"encoder.features={folder} has no complete split {split}; python -m geoclip.features data={data.name} "
                "encoder=… writes it, and resumes what it began"
            )
        if data.root and (Path(data.root) / pattern).is_dir():
            wanted_data[split] = fingerprint(read_shards(data.root, pattern))
    wanted = {"encoder": encoder_identity(encoder), "transform": transform_identity(data, encoder), "data": wanted_data}
    require_features(folder, wanted)
