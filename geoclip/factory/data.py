"""From configuration to data: shards, augmentation, decoders, galleries."""

from __future__ import annotations

import logging
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
    """The embedded default's shards at `root`; False where they stand already."""
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
    """What training makes of a sample's bytes."""
    encoder = config.encoder
    if encoder.features:
        views = read_record(Path(encoder.features))["views"]
        at_once = config.loss.views
        if at_once > max(views, 1):
            raise GeoclipError(
                f"loss.views={at_once}, but encoder.features={encoder.features} hold {views} augmented views of each "
                "picture: write more of them (python -m geoclip.features views=…), or lower loss.views"
            )
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=views, training=True, at_once=at_once)
    return PictureDecoder(
        preprocessing=build_preprocessing(encoder, max_pixels=config.data.max_pixels),
        augmentation=build_augmentation(config.data),
        seed=config.seed,
        views=config.loss.views,
    )


def build_evaluation_decoder(encoder: EncoderConfig, data: DataConfig) -> Decoder:
    """What evaluation makes of a sample's bytes."""
    if encoder.features:
        views = read_record(Path(encoder.features))["views"]
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=views)
    return PictureDecoder(preprocessing=build_preprocessing(encoder, max_pixels=data.max_pixels))


def build_preprocessing(
    encoder: EncoderConfig, tta: Tta = Tta.single, *, max_pixels: int = MAX_PIXELS
) -> Preprocessing:
    """From a decoded picture to the pixels that this encoder takes."""
    return Preprocessing(
        image_px=encoder.image_px,
        resize_px=encoder.resize_px,
        fit=encoder.fit.value,
        interpolation=encoder.interpolation.value,
        tta=tta.value,
        max_pixels=max_pixels,
    )


def transform_identity(data: DataConfig, encoder: EncoderConfig) -> dict[str, Any]:
    """What makes two transforms from a picture's bytes to the backbone's input the same."""
    seen = asdict(build_preprocessing(encoder)) | {"resize_px": encoder.resize_px or encoder.image_px}
    del seen["max_pixels"]  # decides which pictures are skipped, and nothing of the others
    normalised = {"mean": list(encoder.mean), "std": list(encoder.std)}
    return seen | normalised | asdict(build_augmentation(data))


def build_augmentation(data: DataConfig) -> Augmentation:
    """The training transform."""
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
        DataError: they cannot be read, or are all the same.
    """
    found = _read_gallery(gallery)
    if bool((found.gps_deg_G2 == found.gps_deg_G2[:1]).all()):
        raise DataError(
            f"gallery.path={gallery.path} of gallery={gallery.name} has one location alone: it would be the prediction "
            "for every picture; name a gallery of two or more"
        )
    return found


def _read_gallery(gallery: GalleryConfig) -> Gallery:
    match gallery.kind:
        case GalleryKind.own:
            raise ValueError("a gallery of its own belongs to a trained run; see geoclip.factory.loading")
        case GalleryKind.released:
            return read_gallery(asset_path("gallery_100k.csv"), gallery.name)
        case GalleryKind.file:
            return read_gallery(Path(gallery.path), gallery.name)


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
