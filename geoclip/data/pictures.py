"""Which files are pictures, and decoding to upright RGB; each fault is a ValueError with a short reason for counts."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Suffixes by Pillow's name of the format; shards are written with the first. Other formats of Pillow are not decoded:
# for EPS it would run Ghostscript on files from the Web.
SUFFIXES = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp"),
    "MPO": ("jpg", "mpo"),  # pictures of two lenses; cameras and phones name it .jpg
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif", "avifs"),
    "HEIF": ("heic", "heif", "hif", "heics", "heifs"),  # by pillow-heif, if it is installed
}
PICTURE_SUFFIXES = tuple(dict.fromkeys(suffix for of_format in SUFFIXES.values() for suffix in of_format))

# Pictures that are not decoded: cameras' raw files, and files of drawing programs.
UNREADABLE_SUFFIXES = frozenset((
    "3fr", "ai", "arw", "bay", "cr2", "cr3", "crw", "dcr", "dng", "eps", "erf", "exr", "fff", "gpr", "hdr",
    "ico", "iiq", "jxl", "jxr", "k25", "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "psb", "psd",
    "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "svg", "svgz", "tga", "wdp", "x3f", "xcf",
))  # fmt: skip
# Other files that are expected beside pictures; any further file is counted as skipped.
COMPANION_SUFFIXES = frozenset((
    "aae", "cls", "csv", "db", "htm", "html", "ini", "json", "jsonl", "log", "md", "npy", "npz", "parquet",
    "pickle", "pkl", "pt", "py", "rst", "sh", "tsv", "txt", "xml", "xmp", "yaml", "yml", "sqlite", "lock",
))  # fmt: skip


def suffix_of(name: str) -> str:
    """A path's suffix, in lower case and without its dot; empty without one, and for hidden files."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if dot and stem else ""


def undecodable(name: str) -> str:
    """Why a picture with this suffix is not decoded; empty for others. Pillow would read raw files as thumbnails."""
    suffix = suffix_of(name)
    return f".{suffix} pictures cannot be decoded; convert them to JPEG" if suffix in UNREADABLE_SUFFIXES else ""


def unreadable_reason(name: str) -> str:
    """Why a file among pictures is skipped; empty for pictures and their companions."""
    suffix = suffix_of(name)
    if suffix in PICTURE_SUFFIXES or suffix in COMPANION_SUFFIXES:
        return ""
    return undecodable(name) or (f".{suffix} is not a known picture suffix" if suffix else "no suffix")


MAX_PIXELS = 89_478_485  # 256 MiB of RGB; above this size Pillow warns of decompression bombs
JPEG_EXCESS = 4  # a JPEG may have this many times max_pixels: it is scaled down while it is decoded
LARGE_JPEG_PX = 1024  # the least shorter side of a JPEG that is scaled down, if the limit allows it
CHECK_PX = 32  # size for checking a JPEG: it is read to its end at any scale, and a small one is fast
FULL_SIZE = "geoclip_full_size"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def quiet_pillow() -> None:
    """Suppress Pillow's warnings about single pictures: their faults are counted by reason."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


quiet_pillow()


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS, least_px: int = LARGE_JPEG_PX) -> Image.Image:
    """A picture of which only the header has been read.

    A JPEG of more than `max_pixels`, up to `JPEG_EXCESS` times as many, is decoded at 1/2, 1/4 or 1/8 of its size, the
    smallest with a shorter side of at least `least_px`; `size` is the decoded size, `full_size` that in the file.

    Raises:
        ValueError: not a picture, or too many pixels.
    """
    if not data:
        raise ValueError("empty picture")
    too_large = f"more pixels than max_pixels={max_pixels} allows"
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, one per process
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels * JPEG_EXCESS)
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError(too_large) from None
    except Exception as error:  # Pillow raises exceptions of any kind on corrupt bytes
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
    """Width and height in the file of a picture opened by `open_picture`."""
    size: tuple[int, int] = image.info.get(FULL_SIZE, image.size)
    return size


def decode(data: bytes, size_px: int | None = None, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB picture, upright by its EXIF orientation; the first frame of an animation.

    Args:
        data: a file's bytes.
        size_px: JPEGs are scaled down while they are decoded, to at least 2 size_px, which changes pixels by several
            grey levels; None: full size, within the limits of `open_picture`.
        max_pixels: see `open_picture`.

    Raises:
        ValueError: not a readable picture.
    """
    image = open_picture(data, max_pixels, max(LARGE_JPEG_PX, 2 * (size_px or 0)))
    return load_upright(image, None if size_px is None else (2 * size_px, 2 * size_px))


def load_upright(image: Image.Image, least_px: tuple[int, int] | None = None) -> Image.Image:
    """Decode into upright RGB; a JPEG at its smallest scale of at least `least_px`. Raises ValueError: corrupt data."""
    try:
        if least_px is not None:
            image.draft("RGB", least_px)
        image.load()
        upright = ImageOps.exif_transpose(image) if orientation_of(image) > 1 else image
        if upright.mode.startswith("I"):  # 16 bits per grey level: `convert` would clip them at 255
            levels = np.asarray(upright).astype(np.int64) // 257
            upright = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # as in `open_picture`
        if "truncated" in str(error):
            raise ValueError("truncated picture") from None
        raise ValueError(f"unreadable picture ({type(error).__name__})") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of `SUFFIXES` that this Pillow reads; HEIF by a plugin."""
    Image.init()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in SUFFIXES if name in Image.OPEN)


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 … 8, by default 1; above 4 width and height are swapped."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # corrupt EXIF in a picture that may be intact
        return 1
    return orientation if orientation in range(1, 9) else 1
