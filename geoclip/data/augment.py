"""What training changes of a picture: crop and flip here, per picture, in Pillow's and PyTorch's C code.

Colours are left to `color`, which changes a whole batch at a time, on the device.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from geoclip.data.pictures import load_upright, open_picture, orientation_of
from geoclip.data.preprocessing import Preprocessing, evaluation_pixels_of

Box = tuple[float, float, float, float]

NO_COLOR = np.array([1, 1, 1, 0, 0], dtype=np.float32)


@dataclass(kw_only=True, slots=True, frozen=True)
class Augmentation:
    """The released code's training transform, each part a number: crop, flip, colour jitter, grayscale."""

    crop_scale_min: float = 1.0  # smallest area share of the crop; 1 takes the central square
    crop_ratio: float = 1.0
    flip: bool = False
    color_jitter: float = 0.0
    grayscale: float = 0.0

    @property
    def changes_color(self) -> bool:
        """Whether colours are drawn."""
        return self.color_jitter > 0 or self.grayscale > 0

    @property
    def is_identity(self) -> bool:
        """Whether training sees exactly what evaluation sees."""
        return self == Augmentation(crop_ratio=self.crop_ratio)


def training_pixels_of(
    data: bytes, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(3, image_px, image_px): random resized crop and flip; colours are changed later, a batch at a time.

    Where nothing is cropped at random, what evaluation sees. Else the crop is drawn before the picture is decoded, so
    that a JPEG is scaled down by its own transform straight to what the crop needs. Bilinear, as torchvision's crop in
    the released code.

    Raises:
        ValueError: as `pictures.decode`.
    """
    size_px = preprocessing.image_px
    if augmentation.crop_scale_min < 1:
        image = open_picture(data, preprocessing.max_pixels)
        turned = orientation_of(image) > 4
        width, height = image.size[::-1] if turned else image.size
        left, top, right, bottom = _crop_box((width, height), augmentation, rng)
        shrink = max(1, int(min(right - left, bottom - top) / size_px))
        image = load_upright(image, (image.width // shrink or 1, image.height // shrink or 1))
        across, down = image.width / width, image.height / height
        first = min(round(left * across), image.width - 1), min(round(top * down), image.height - 1)
        last = max(round(right * across), first[0] + 1), max(round(bottom * down), first[1] + 1)
        pixels = _shrunk(image.crop((*first, *last)), size_px)
    else:
        pixels = evaluation_pixels_of(data, preprocessing)
    if augmentation.flip and rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    return pixels


def color_draw(augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """The random numbers of one picture's colours, for `color.jitter_colors`.

    Returns:
        (5,) factors of brightness, contrast and saturation in [0.6, 1.4], hue in ±0.1 of the circle, 1 for grayscale.
        `NO_COLOR` where the probabilities miss.

    Source: the released code's ColorJitter(.4, .4, .4, .1) and RandomGrayscale.
    """
    draw = NO_COLOR.copy()
    if rng.random() < augmentation.color_jitter:
        draw[:3] = rng.uniform(0.6, 1.4, size=3)
        draw[3] = rng.uniform(-0.1, 0.1)
    draw[4] = rng.random() < augmentation.grayscale
    return draw


def augmentation_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of one picture in one epoch: the same whoever decodes it, and in whatever order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _shrunk(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """(3, size, size), bilinear with antialiasing: what Pillow's resize gives, by PyTorch's faster code for bytes."""
    pixels_HW3 = torch.from_numpy(np.array(image))
    shrunk = F.interpolate(
        pixels_HW3.permute(2, 0, 1)[None], size=(size_px, size_px), mode="bilinear", antialias=True
    )
    found: NDArray[np.uint8] = shrunk[0].numpy()
    return found


def _crop_box(size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator) -> Box:
    """A box of random area and aspect; after ten misses the central square, as torchvision falls back."""
    width, height = size
    log_ratio = math.log(augmentation.crop_ratio)
    for _ in range(10):
        area = width * height * rng.uniform(augmentation.crop_scale_min, 1.0)
        aspect = math.exp(rng.uniform(-log_ratio, log_ratio))
        crop_width, crop_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_width <= width and crop_height <= height:
            left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
            return left, top, left + crop_width, top + crop_height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
