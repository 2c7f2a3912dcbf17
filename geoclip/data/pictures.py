"""Pictures: which files are pictures, and from bytes to upright RGB; each fault is a ValueError with its reason."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

# By Pillow's name of each format that is decoded, its suffixes; the first is the one that shards are written with.
# Pillow knows more formats: EPS, say, for which it would start Ghostscript on what the Web sent.
SUFFIXES = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp"),
    "MPO": ("jpg", "mpo"),  # two lenses in one file; cameras and phones call it .jpg
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif", "avifs"),
    "HEIF": ("heic", "heif", "hif", "heics", "heifs"),  # by pillow-heif, where it is installed
}
PICTURE_SUFFIXES = tuple(dict.fromkeys(suffix for of_format in SUFFIXES.values() for suffix in of_format))

# Pictures that no decoder here reads: cameras' raw files, and what drawing programs write.
UNREADABLE_SUFFIXES = frozenset((
    "3fr", "ai", "arw", "bay", "cr2", "cr3", "crw", "dcr", "dng", "eps", "erf", "exr", "fff", "gpr", "hdr",
    "ico", "iiq", "jxl", "jxr", "k25", "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "psb", "psd",
    "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "svg", "svgz", "tga", "wdp", "x3f", "xcf",
))  # fmt: skip
# What belongs beside pictures and is none; whatever else is found there is counted.
COMPANION_SUFFIXES = frozenset((
    "aae", "cls", "csv", "db", "htm", "html", "ini", "json", "jsonl", "log", "md", "npy", "npz", "parquet",
    "pickle", "pkl", "pt", "py", "rst", "sh", "tsv", "txt", "xml", "xmp", "yaml", "yml", "sqlite", "lock",
))  # fmt: skip


def suffix_of(name: str) -> str:
    """What follows the last dot of a path's last part, in lower case; empty without one, and of hidden files."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if dot and stem else ""


def undecodable(name: str) -> str:
    """Why no decoder reads a picture of this name, to be counted by; empty for all others.

    It goes by the suffix: raw files are TIFFs inside, of which Pillow would give a thumbnail.
    """
    suffix = suffix_of(name)
    return f".{suffix} pictures cannot be decoded; convert them to JPEG" if suffix in UNREADABLE_SUFFIXES else ""


def unreadable_reason(name: str) -> str:
    """Why a file among pictures is no sample, to be counted by; empty for a picture, or what belongs beside them."""
    suffix = suffix_of(name)
    if suffix in PICTURE_SUFFIXES or suffix in COMPANION_SUFFIXES:
        return ""
    return undecodable(name) or (f".{suffix} is not a known picture suffix" if suffix else "no suffix")


MAX_PIXELS = 89_478_485  # a quarter GiB of RGB, the size from which on Pillow warns of decompression bombs
JPEG_EXCESS = 4  # a JPEG may have so many times max_pixels: it is scaled down while it is decoded
LARGE_JPEG_PX = 1024  # the shorter side that such a JPEG keeps at least, if the limit lets it
CHECK_PX = 32  # to check a JPEG: it is read to its end whatever its scale, and the smaller the faster
FULL_SIZE = "geoclip_full_size"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def quiet_pillow() -> None:
    """What is wrong with a picture is counted by reason; printed a million times, by Pillow, it would hide the rest."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


quiet_pillow()


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS, least_px: int = LARGE_JPEG_PX) -> Image.Image:
    """A picture of which only the header has been read.

    A JPEG of more than `max_pixels`, up to `JPEG_EXCESS` times as many, will be decoded at a half, a quarter or an
    eighth of its sides, the smallest whose shorter side is `least_px`, and has that size here; see `full_size`.

    Raises:
        ValueError: no picture, or one with too many pixels; the message is a short reason to count by.
    """
    if not data:
        raise ValueError("empty picture")
    too_large = f"more pixels than max_pixels={max_pixels} allows"
    _let_pillow_open(max_pixels * JPEG_EXCESS)
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError(too_large) from None
    except Exception as error:  # Pillow's readers raise whatever they like on damaged bytes
        if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and "HEIF" not in _formats():
            raise ValueError("HEIC needs pillow-heif: pip install 'geoclip-ablations[heic]'") from None
        raise ValueError(f"unreadable picture ({type(error).__name__})") from None
    pixels = image.width * image.height
    if pixels > max_pixels:
        if image.format not in ("JPEG", "MPO") or pixels > JPEG_EXCESS * max_pixels:
            raise ValueError(too_large)
        image.info[FULL_SIZE] = image.size
        scale = next((scale for scale in (8, 4) if min(image.size) >= scale * least_px), 2)
        image.draft("RGB", (image.width // scale or 1, image.height // scale or 1))
    return image


def full_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in its file, of a picture that `open_picture` opened."""
    size: tuple[int, int] = image.info.get(FULL_SIZE, image.size)
    return size


def decode(data: bytes, size_px: int | None = None, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB picture, upright by its EXIF orientation; of an animation the first frame.

    Args:
        data: a file's bytes.
        size_px: JPEGs much larger than needed are scaled down while they are decoded, never below 2 size_px, which
            changes single pixels by several grey levels; None decodes all that `open_picture` lets through.
        max_pixels: see `open_picture`.

    Raises:
        ValueError: not a picture that can be read; the message is a short reason to count by.
    """
    image = open_picture(data, max_pixels, max(LARGE_JPEG_PX, 2 * (size_px or 0)))
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
    """Those of the formats in `SUFFIXES` that this Pillow can read; HEIF by a plugin."""
    Image.init()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in SUFFIXES if name in Image.OPEN)


def _let_pillow_open(pixels: int) -> None:
    """Pillow's own limit, which is the process's, is never below what is decided here."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 … 8; above 4 width and height change places. 1 where none can be read."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the picture itself may be whole
        return 1
    return orientation if orientation in range(1, 9) else 1
