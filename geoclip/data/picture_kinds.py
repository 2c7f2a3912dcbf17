"""Which files are pictures, by their suffix: those that can be decoded, and those that cannot, to be counted."""

from __future__ import annotations

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
