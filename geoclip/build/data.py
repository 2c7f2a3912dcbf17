"""What is read: shards, their stream, galleries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoclip.config import BlueMarbleConfig, DataConfig, EncoderConfig, GalleryConfig, GalleryKind, TrainConfig, Tta
from geoclip.data.assets import asset_path
from geoclip.data.batch import Decoder, PictureDecoder
from geoclip.data.building.blue_marble_shards import BlueMarbleSettings, build_blue_marble
from geoclip.data.feature_shards import FeatureDecoder, read_record
from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shard_list import Shard
from geoclip.data.stream import StreamPlan
from geoclip.data.subset import take_fraction
from geoclip.data.transforms import Augmentation, Preprocessing
from geoclip.drawing.maps import draw_distribution
from geoclip.errors import DataError, GeoclipError
from geoclip.evaluation.gallery import Gallery, read_gallery
from geoclip.run_dir import to_dict


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
            raise ValueError("a gallery of its own belongs to a trained run; see geoclip.trained")
        case GalleryKind.released:
            return read_gallery(asset_path("gallery_100k.csv"), gallery.name)
        case GalleryKind.file:
            return read_gallery(Path(gallery.path), gallery.name)
