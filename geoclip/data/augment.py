"""From the bytes of a picture to the pixels that an encoder takes. Per picture, in Pillow's C code.

Colours are left to `color`, which changes a whole batch at a time, on the device.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Box = tuple[float, float, float, float]

MAX_PIXELS = 89_478_485  # a quarter GiB of RGB, the size from which on Pillow warns of decompression bombs
NO_COLOR = np.array([1, 1, 1, 0, 0], dtype=np.float32)

# What photographs come in. Pillow knows more: EPS, say, for which it would start Ghostscript on what the Web sent.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF")


def quiet_pillow() -> None:
    """What is wrong with a picture is counted by reason; printed a million times, by Pillow, it would hide the rest."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


quiet_pillow()


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


def open_picture(data: bytes) -> Image.Image:
    """A picture of which only the header has been read.

    Raises:
        ValueError: no picture, or one too large to be decoded safely; the message is a short reason to count by.
    """
    if not data:
        raise ValueError("empty picture")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError("decompression bomb") from None
    except Exception as error:  # Pillow's readers raise whatever they like on damaged bytes
        raise ValueError(f"unreadable picture ({type(error).__name__})") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError("decompression bomb")
    return image


def decode(data: bytes, size_px: int) -> Image.Image:
    """An RGB picture, upright by its EXIF orientation; of an animation the first frame.

    JPEGs much larger than needed are scaled down while they are decoded (never below 2 size_px).

    Raises:
        ValueError: not a picture that can be read; the message is a short reason to count by.
    """
    image = open_picture(data)
    return _load(image, (2 * size_px, 2 * size_px))


def evaluation_pixels_of(data: bytes, size_px: int) -> NDArray[np.uint8]:
    """Decode, then `evaluation_pixels`.

    Raises:
        ValueError: as `decode`.
    """
    return evaluation_pixels(decode(data, size_px), size_px)


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


def training_pixels_of(
    data: bytes, size_px: int, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(3, size, size): random resized crop and flip; colours are changed later, a batch at a time.

    The crop is drawn before the picture is decoded, so that a JPEG is scaled down by its own transform straight to
    what the crop needs. Bilinear, as torchvision's crop in the released code.

    Raises:
        ValueError: as `decode`.
    """
    if augmentation.crop_scale_min < 1:
        image = open_picture(data)
        turned = _orientation(image) > 4
        width, height = image.size[::-1] if turned else image.size
        left, top, right, bottom = _crop_box((width, height), augmentation, rng)
        shrink = max(1, int(min(right - left, bottom - top) / size_px))
        image = _load(image, (image.width // shrink or 1, image.height // shrink or 1))
        across, down = image.width / width, image.height / height
        first = min(round(left * across), image.width - 1), min(round(top * down), image.height - 1)
        last = max(round(right * across), first[0] + 1), max(round(bottom * down), first[1] + 1)
        pixels = _shrunk(image.crop((*first, *last)), size_px)
    else:
        pixels = evaluation_pixels_of(data, size_px)
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


def _load(image: Image.Image, least_px: tuple[int, int]) -> Image.Image:
    """Decode into upright RGB; a JPEG at the smallest of its own scales that keeps `least_px`.

    Raises:
        ValueError: the picture's data are damaged.
    """
    try:
        image.draft("RGB", least_px)
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
        if upright.mode.startswith("I"):  # 16 bits per grey level, which `convert` would cut off at 255
            levels = np.asarray(upright).astype(np.int64) // 257
            upright = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged bytes
        if "truncated" in str(error):
            raise ValueError("truncated picture") from None
        raise ValueError(f"unreadable picture ({type(error).__name__})") from None


def _shrunk(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """(3, size, size), bilinear with antialiasing: what Pillow's resize gives, by PyTorch's faster code for bytes."""
    pixels_HW3 = torch.from_numpy(np.array(image))
    shrunk = F.interpolate(
        pixels_HW3.permute(2, 0, 1)[None], size=(size_px, size_px), mode="bilinear", antialias=True
    )
    found: NDArray[np.uint8] = shrunk[0].numpy()
    return found


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 … 8; above 4 width and height change places. 1 where none can be read."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the picture itself may be whole
        return 1
    return orientation if orientation in range(1, 9) else 1


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


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
