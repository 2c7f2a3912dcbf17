"""From the bytes of a picture to upright RGB, whatever the Web sent: each fault is a ValueError with a reason."""

from __future__ import annotations

import functools
import io
import logging
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 89_478_485  # a quarter GiB of RGB, the size from which on Pillow warns of decompression bombs

# What photographs come in. Pillow knows more: EPS, say, for which it would start Ghostscript on what the Web sent.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF")


def quiet_pillow() -> None:
    """What is wrong with a picture is counted by reason; printed a million times, by Pillow, it would hide the rest."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


quiet_pillow()


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


def decode(data: bytes, size_px: int | None = None) -> Image.Image:
    """An RGB picture, upright by its EXIF orientation; of an animation the first frame.

    Args:
        data: a file's bytes.
        size_px: JPEGs much larger than needed are scaled down while they are decoded, never below 2 size_px, which
            changes single pixels by several grey levels; None decodes all there is.

    Raises:
        ValueError: not a picture that can be read; the message is a short reason to count by.
    """
    image = open_picture(data)
    return load_upright(image, None if size_px is None else (2 * size_px, 2 * size_px))


def load_upright(image: Image.Image, least_px: tuple[int, int] | None = None) -> Image.Image:
    """Decode into upright RGB; a JPEG, with `least_px`, at the smallest of its own scales that keeps it.

    Raises:
        ValueError: the picture's data are damaged.
    """
    try:
        if least_px is not None:
            image.draft("RGB", least_px)
        image.load()
        upright = ImageOps.exif_transpose(image) if orientation_of(image) > 1 else image
        if upright.mode.startswith("I"):  # 16 bits per grey level, which `convert` would cut off at 255
            levels = np.asarray(upright).astype(np.int64) // 257
            upright = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever they like on damaged bytes
        if "truncated" in str(error):
            raise ValueError("truncated picture") from None
        raise ValueError(f"unreadable picture ({type(error).__name__})") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 … 8; above 4 width and height change places. 1 where none can be read."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the picture itself may be whole
        return 1
    return orientation if orientation in range(1, 9) else 1
