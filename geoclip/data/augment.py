"""From the bytes of a picture to the pixels that an encoder takes. Per picture, in Pillow's C code."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Box = tuple[float, float, float, float]


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


def decode(data: bytes, size_px: int) -> Image.Image:
    """An RGB picture, upright by its EXIF orientation.

    JPEGs much larger than needed are scaled down while they are decoded (never below 2 size_px).

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: not a picture that can be read.
    """
    image: Image.Image = Image.open(io.BytesIO(data))
    image.draft("RGB", (2 * size_px, 2 * size_px))
    image.load()
    if image.format in {"JPEG", "TIFF", "WEBP", "PNG", "MPO"} and "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits per grey level, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).clip(max=255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def evaluation_pixels(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """(3, size, size): shorter side to size_px, bicubic, then the central square, as CLIP's preprocessing does."""
    width, height = image.size
    if (width, height) != (size_px, size_px):
        scale = size_px / min(width, height)
        resized = max(size_px, int(width * scale)), max(size_px, int(height * scale))
        image = image.resize(resized, Image.Resampling.BICUBIC)
        left, top = (resized[0] - size_px) // 2, (resized[1] - size_px) // 2
        image = image.crop((left, top, left + size_px, top + size_px))
    return _channels_first(image)


def training_pixels(
    image: Image.Image, size_px: int, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(3, size, size): random resized crop, flip, colour jitter (.4, .4, .4, .1), grayscale."""
    if augmentation.crop_scale_min < 1:
        box = _crop_box(image.size, augmentation, rng)
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    elif image.size != (size_px, size_px):
        image = Image.fromarray(evaluation_pixels(image, size_px).transpose(1, 2, 0))
    if augmentation.flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < augmentation.color_jitter:
        image = _jitter_colors(image, rng)
    if rng.random() < augmentation.grayscale:
        image = image.convert("L").convert("RGB")
    return _channels_first(image)


def evaluation_pixels_of(data: bytes, size_px: int) -> NDArray[np.uint8]:
    """Decode, then `evaluation_pixels`.

    Raises:
        ValueError: no picture that can be read; the message is a short reason.
    """
    try:
        return evaluation_pixels(decode(data, size_px), size_px)
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged bytes
        raise ValueError(f"unreadable picture ({type(error).__name__})") from error


def training_pixels_of(
    data: bytes, size_px: int, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Decode, crop and flip.

    Raises:
        ValueError: no picture that can be read; the message is a short reason.
    """
    try:
        return training_pixels(decode(data, size_px), size_px, augmentation, rng)
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged bytes
        raise ValueError(f"unreadable picture ({type(error).__name__})") from error


NO_COLOR = np.zeros(9, dtype=np.float32)


def color_draw(augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """The random numbers of one picture's colours."""
    return NO_COLOR


def augmentation_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of one picture in one epoch: the same whoever decodes it, and in whatever order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


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


def _jitter_colors(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation by a factor in [0.6, 1.4], hue by ±0.1 of the circle, in random order."""
    for step in rng.permutation(4):
        if step == 3:
            hue, saturation, value = image.convert("HSV").split()
            shift = round(rng.uniform(-0.1, 0.1) * 255)
            turned = hue.point([(level + shift) % 256 for level in range(256)])
            image = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
        else:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhance(image).enhance(rng.uniform(0.6, 1.4))
    return image


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
