"""What evaluation and prediction make of a picture: the encoder's own preprocessing, in one view, five or ten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoclip.data.pictures import MAX_PIXELS, decode

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
FITS = ("crop", "squash")
VIEWS = {"single": 1, "five_crop": 5, "ten_crop": 10}
WIDER = 256 / 224  # of the picture that crops are taken from, to the crop


@dataclass(kw_only=True, slots=True, frozen=True)
class Preprocessing:
    """From a decoded picture to the pixels that an encoder takes; CLIP's by default.

    Its normalisation is the encoder's own affair, so that pixels stay bytes until they are on the device.

    Raises:
        ValueError: fit, interpolation or tta is none of those that there are.
    """

    image_px: int
    resize_px: int | None = (
        None  # fit=crop: the shorter side before the central square is cut; None: image_px
    )
    fit: str = "crop"  # squash: both sides to image_px, whatever their ratio
    interpolation: str = "bicubic"  # or bilinear
    tta: str = "single"  # views of each picture; or five_crop, ten_crop
    max_pixels: int = MAX_PIXELS  # see `open_picture`; what becomes of smaller pictures does not depend on it

    def __post_init__(self) -> None:
        for key, choices in (("fit", FITS), ("interpolation", RESAMPLING), ("tta", VIEWS)):
            if getattr(self, key) not in choices:
                raise ValueError(f"{key}={getattr(self, key)!r} must be one of {', '.join(choices)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture's pixels: (3, image_px, image_px); with test-time augmentation (views, 3, …)."""
        one = (3, self.image_px, self.image_px)
        return one if self.tta == "single" else (VIEWS[self.tta], *one)


def evaluation_pixels_of(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode at full size, then `evaluation_pixels`.

    JPEGs of at most `max_pixels` are not scaled down while they are decoded, as training's are: that is another picture
    than the one that the encoder's own preprocessing sees.

    Raises:
        ValueError: as `decode` and `evaluation_pixels`.
    """
    return evaluation_pixels(decode(data, max_pixels=preprocessing.max_pixels), preprocessing)


def evaluation_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels of an RGB picture, of the preprocessing's shape.

    Raises:
        ValueError: so long and thin that it would not fit into memory, once its shorter side is as long as needed.

    Source: of the single view, the image processors of `transformers`; of the crops, Krizhevsky et al., "ImageNet
    Classification with Deep Convolutional Neural Networks", NeurIPS 2012: corners, centre, and their mirror images.
    """
    size_px, resampling = preprocessing.image_px, RESAMPLING[preprocessing.interpolation]
    if preprocessing.tta != "single":
        views = _five_crops(_resized(image, round(WIDER * size_px), resampling), size_px)
        if preprocessing.tta == "ten_crop":
            views += [view[:, :, ::-1] for view in views]
        return np.stack(views)
    if preprocessing.fit == "squash":
        return _channels_first(image.resize((size_px, size_px), resampling))
    resized = _resized(image, preprocessing.resize_px or size_px, resampling)
    return _channels_first(_cut(resized, *_middle(resized, size_px), size_px))


def _resized(image: Image.Image, shorter_px: int, resampling: Image.Resampling) -> Image.Image:
    """The picture with its shorter side of this length; the longer one is rounded down, as transformers does."""
    short, long = sorted(image.size)
    longer_px = int(shorter_px * long / short)
    if shorter_px * longer_px > MAX_PIXELS:
        raise ValueError("too long and thin")
    upright = image.width <= image.height
    return image.resize((shorter_px, longer_px) if upright else (longer_px, shorter_px), resampling)


def _five_crops(image: Image.Image, size_px: int) -> list[NDArray[np.uint8]]:
    """Squares at the four corners, row by row, and in the middle."""
    right, bottom = image.width - size_px, image.height - size_px
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    return [_channels_first(_cut(image, *place, size_px)) for place in (*corners, _middle(image, size_px))]


def _middle(image: Image.Image, size_px: int) -> tuple[int, int]:
    """Left and top of the central square."""
    return (image.width - size_px) // 2, (image.height - size_px) // 2


def _cut(image: Image.Image, left: int, top: int, size_px: int) -> Image.Image:
    return image.crop((left, top, left + size_px, top + size_px))


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
