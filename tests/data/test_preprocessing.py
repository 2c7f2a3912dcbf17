"""Evaluation's pixels equal those of the encoder's own preprocessing, to one grey level."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from PIL import Image, ImageOps

from geoclip.config import Fit, Interpolation, TrainConfig, typed
from geoclip.config.composed import conf_dir
from geoclip.data.batch import PictureDecoder, Sample
from geoclip.data.features import ViewsDecoder
from geoclip.data.pictures import decode
from geoclip.data.transforms import Augmentation, Preprocessing, evaluation_pixels, evaluation_pixels_of
from geoclip.factory.data import build_preprocessing, transform_identity

SIZES = [(640, 480), (333, 500), (224, 224), (230, 1000), (100, 61), (7, 300), (1601, 1203)]
CROP_224: dict[str, Any] = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
CROP_336: dict[str, Any] = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
CROP_256: dict[str, Any] = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
BILINEAR = Image.Resampling.BILINEAR


def dinov3(images: Image.Image) -> dict[str, list[NDArray[np.float32]]]:
    """What its processor does, which needs torchvision: squashed, bilinear and antialiased, in floating point."""
    pixels = torch.from_numpy(np.asarray(images, dtype=np.float32)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    return {"pixel_values": [resized[0].numpy()]}


BYTES: dict[str, Any] = {"do_normalize": False, "do_rescale": False}
PROCESSORS: dict[str, Any] = {  # as the models' own preprocessor_config.json have it
    "clip_vit_l14": transformers.CLIPImageProcessor(**CROP_224, **BYTES),
    "clip_vit_l14_336": transformers.CLIPImageProcessor(**CROP_336, **BYTES),
    "siglip2_b16": transformers.SiglipImageProcessor(size={"height": 224, "width": 224}, resample=BILINEAR, **BYTES),
    "dinov2_b14": transformers.BitImageProcessor(**CROP_256, **BYTES),
    "dinov3_b16": dinov3,
}


def config_of(option: str) -> TrainConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("train", [f"encoder={option}"]), TrainConfig, lambda _: [])


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse shapes below fine grain, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    shapes = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    grain = rng.integers(-40, 41, (height, width, 3))
    return Image.fromarray((shapes + grain).clip(0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **how)
    return file.getvalue()


def grey_levels_apart(ours: NDArray[Any], theirs: Any) -> float:
    assert ours.shape == np.asarray(theirs).shape
    return float(np.abs(ours.astype(float) - np.asarray(theirs, dtype=float)).max())


@pytest.mark.parametrize("option", PROCESSORS)
@pytest.mark.parametrize("size", SIZES)
def test_it_agrees_with_the_models_own_processor_to_one_grey_level(option: str, size: tuple[int, int]) -> None:
    preprocessing = build_preprocessing(config_of(option).encoder)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    for image in (photograph(*size), noise):
        theirs = PROCESSORS[option](images=image)["pixel_values"][0]
        assert grey_levels_apart(evaluation_pixels(image, preprocessing), theirs) <= 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_seen_as_the_processor_sees_it(orientation: int) -> None:
    """Scaled down while it is decoded, as training's are, it would be another picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = as_jpeg(photograph(1600, 1200), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    theirs = PROCESSORS["clip_vit_l14"](images=upright)["pixel_values"][0]
    preprocessing = Preprocessing(image_px=224)
    assert grey_levels_apart(evaluation_pixels_of(data, preprocessing), theirs) <= 1
    assert grey_levels_apart(evaluation_pixels(decode(data, 224), preprocessing), theirs) > 1


@pytest.mark.parametrize("tta", ["single", "five_crop", "ten_crop"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_decoder_gives_rows_of_its_shape(tta: str, fit: str) -> None:
    preprocessing = Preprocessing(image_px=16, fit=fit, tta=tta)
    sample = Sample(shard="a", key="b", data=as_jpeg(photograph(40, 30)), gps_deg=(0, 0))
    decoder = PictureDecoder(preprocessing=preprocessing)
    pixels, _ = decoder(sample)
    views = {"single": (), "five_crop": (5,), "ten_crop": (10,)}[tta]
    assert pixels.shape == decoder.shape == (*views, 3, 16, 16) and pixels.dtype == np.uint8


def test_the_evaluation_view_of_features_equals_the_pixels_of_evaluation() -> None:
    data = as_jpeg(photograph(80, 50))
    for preprocessing in (
        Preprocessing(image_px=16),
        Preprocessing(image_px=16, resize_px=24, interpolation="bilinear"),
        Preprocessing(image_px=16, fit="squash"),
    ):
        decoder = ViewsDecoder(
            preprocessing=preprocessing, augmentation=Augmentation(crop_scale_min=0.5), seed=0, views=2
        )
        pixels, _ = decoder(Sample(shard="a", key="b", data=data, gps_deg=(0, 0)))
        assert pixels.shape == (3, 3, 16, 16)
        assert np.array_equal(pixels[0], evaluation_pixels_of(data, preprocessing))


def test_different_preprocessings_have_different_identities() -> None:
    config = config_of("dinov2_b14")
    changes: list[dict[str, Any]] = [
        {},
        {"image_px": 210},
        {"resize_px": 240},
        {"fit": Fit.squash},
        {"interpolation": Interpolation.bilinear},
        {"mean": [0.5, 0.5, 0.5]},
        {"std": [0.5, 0.5, 0.5]},
    ]
    found = [transform_identity(config.data, replace(config.encoder, **change)) for change in changes]
    assert all(one not in found[:number] for number, one in enumerate(found))
    clip = config_of("clip_vit_l14")
    same = replace(clip.encoder, resize_px=224)
    assert transform_identity(clip.data, same) == transform_identity(clip.data, clip.encoder)


def test_a_picture_of_one_line_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="too long and thin"):
        evaluation_pixels(Image.new("RGB", (50_000, 1)), Preprocessing(image_px=224))


@pytest.mark.parametrize("wrong", [{"fit": "pad"}, {"interpolation": "nearest"}, {"tta": "two_crop"}])
def test_unknown_choices_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preprocessing(image_px=16, **wrong)
