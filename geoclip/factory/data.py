"""From configuration to data: shards, augmentation, decoders, galleries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoclip.config import (
    BlueMarbleConfig,
    DataConfig,
    DataKind,
    EncoderConfig,
    GalleryConfig,
    GalleryKind,
    TrainConfig,
    Tta,
)
from geoclip.data.assets import asset_path
from geoclip.data.batch import Decoder, PictureDecoder
from geoclip.data.features import FeatureDecoder, read_record, require_features
from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shard_index import open_indices
from geoclip.data.shards import (
    Shard,
    count_samples,
    find_shards,
    fingerprint,
    read_shards,
    refuse_bad_shards,
    refuse_skipped_shards,
    take_fraction,
)
from geoclip.data.stream import StreamPlan
from geoclip.data.transforms import Augmentation, Preprocessing
from geoclip.distributed import World, wait_for_all
from geoclip.errors import DataError, GeoclipError
from geoclip.evaluation.gallery import Gallery, read_gallery
from geoclip.factory.model import encoder_identity
from geoclip.plotting.maps import draw_distribution
from geoclip.prepare.blue_marble import BlueMarbleSettings, build_blue_marble
from geoclip.runs.run_dir import to_dict


def build_blue_marble_data(root: str, settings: BlueMarbleConfig, *, overwrite: bool = False) -> bool:
    """Build the embedded default's shards at `root`; False if they exist."""
    return build_blue_marble(
        Path(root), BlueMarbleSettings(**to_dict(settings)), draw=draw_distribution, overwrite=overwrite
    )


def build_stream_plan(config: TrainConfig, shards: list[Shard]) -> StreamPlan:
    """The order of the samples in the training stream."""
    data = config.data
    return StreamPlan(
        subset=take_fraction(shards, data.fraction, config.seed),
        streams=data.streams,
        batch_size=config.optim.batch_size,
        shuffle_buffer=data.shuffle_buffer,
        seed=config.seed,
        decoder=build_decoder(config),
    )


def build_decoder(config: TrainConfig) -> Decoder:
    """The decoder of training samples."""
    encoder = config.encoder
    if encoder.features:
        views = read_record(Path(encoder.features))["views"]
        if config.loss.views > max(views, 1):
            raise GeoclipError(
                f"loss.views={config.loss.views}: encoder.features={encoder.features} has {views} augmented views of "
                "each picture; lower loss.views, or write more views (python -m geoclip.features views=…)"
            )
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=views, training=True, at_once=config.loss.views)
    return PictureDecoder(
        preprocessing=build_preprocessing(encoder, max_pixels=config.data.max_pixels),
        augmentation=build_augmentation(config.data),
        seed=config.seed,
        views=config.loss.views,
    )


def build_evaluation_decoder(encoder: EncoderConfig, data: DataConfig) -> Decoder:
    """The decoder of validation samples."""
    if encoder.features:
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=read_record(Path(encoder.features))["views"])
    return PictureDecoder(preprocessing=build_preprocessing(encoder, max_pixels=data.max_pixels))


def build_preprocessing(
    encoder: EncoderConfig, tta: Tta = Tta.single, *, max_pixels: int = MAX_PIXELS
) -> Preprocessing:
    """The transform from a decoded picture to the encoder's input."""
    return Preprocessing(
        image_px=encoder.image_px,
        resize_px=encoder.resize_px,
        fit=encoder.fit.value,
        interpolation=encoder.interpolation.value,
        tta=tta.value,
        max_pixels=max_pixels,
    )


def transform_identity(data: DataConfig, encoder: EncoderConfig) -> dict[str, Any]:
    """The values that decide what the backbone receives; equal for two equal transforms."""
    seen = asdict(build_preprocessing(encoder)) | {"resize_px": encoder.resize_px or encoder.image_px}
    del seen["max_pixels"]  # decides only which pictures are skipped
    normalised = {"mean": list(encoder.mean), "std": list(encoder.std)}
    return seen | normalised | asdict(build_augmentation(data))


def build_augmentation(data: DataConfig) -> Augmentation:
    """The augmentation of training pictures."""
    return Augmentation(
        crop_scale_min=data.crop_scale_min,
        crop_ratio=data.crop_ratio,
        flip=data.flip,
        color_jitter=data.color_jitter,
        grayscale=data.grayscale,
    )


def build_gallery(gallery: GalleryConfig) -> Gallery:
    """The coordinates to retrieve from.

    Raises:
        DataError: they cannot be read, or are all equal.
    """
    assert gallery.kind is not GalleryKind.own, "load_model replaces it with the gallery of the run"
    released = gallery.kind is GalleryKind.released
    found = read_gallery(asset_path("gallery_100k.csv") if released else Path(gallery.path), gallery.name)
    if bool((found.gps_deg_G2 == found.gps_deg_G2[:1]).all()):
        raise DataError(
            f"gallery.path={gallery.path} of gallery={gallery.name} has only one location, which would be every "
            "prediction; use a gallery of two or more"
        )
    return found


def open_shards(data: DataConfig, encoder: EncoderConfig, world: World) -> dict[str, list[Shard]]:
    """Training and validation shards: of encoder.features if set, else of pictures.

    Raises:
        DataError: no shards, features of another encoder or data set, or too many unusable samples.
    """
    _build_on_first_use(data, world)
    if encoder.features:
        require_features_of(data, encoder)
        return _open(encoder.features, {"train": "train", "val": "val"}, data.max_bad_fraction, world)
    return open_splits(data, ["train", "val"], world)


def open_splits(data: DataConfig, splits: list[str], world: World) -> dict[str, list[Shard]]:
    """The shards of these splits; `train` is data.train, `val` is data.val, others are folders in data.root.

    Raises:
        DataError: no shards, or more than data.max_bad_fraction of shards or samples are unusable.
    """
    _build_on_first_use(data, world)
    patterns = {"train": data.train, "val": data.val}
    return _open(data.root, {split: patterns.get(split, split) for split in splits}, data.max_bad_fraction, world)


def _build_on_first_use(data: DataConfig, world: World) -> None:
    """Build the embedded default's shards on rank 0."""
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
    open_indices(paths[world.rank :: world.size])  # each rank writes a part of missing indices
    wait_for_all()
    found = {split: count_samples(of_split.paths) for split, of_split in files.items()}
    for split, shards in found.items():
        account = refuse_bad_shards(shards, max_bad_fraction, files[split].what)
        if world.is_main:
            account.log()
    return found


def require_features_of(data: DataConfig, encoder: EncoderConfig) -> None:
    """Refuse features of another encoder, transform or data set. The pictures need not exist.

    Raises:
        DataError: they differ, or a split is incomplete.
    """
    folder, wanted_data = Path(encoder.features), {"name": data.name}
    for split, pattern in (("train", data.train), ("val", data.val)):
        if not (folder / split / "index.json").is_file():
            raise DataError(
                f"encoder.features={folder}: has no complete split {split}; write or resume it: "
                f"python -m geoclip.features data={data.name} encoder=…"
            )
        if data.root and (Path(data.root) / pattern).is_dir():
            wanted_data[split] = fingerprint(read_shards(data.root, pattern))
    wanted = {"encoder": encoder_identity(encoder), "transform": transform_identity(data, encoder), "data": wanted_data}
    require_features(folder, wanted)
