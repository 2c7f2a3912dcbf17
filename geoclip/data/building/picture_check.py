"""Whether a picture is whole, and a smaller one where it is too large."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from geoclip.data.building.manifest import Manifest, Planned, Verdict
from geoclip.data.building.picture_index import MISSING, Found
from geoclip.data.building.shard_sources import ShardSource
from geoclip.data.picture_kinds import SUFFIXES, undecodable
from geoclip.data.pictures import CHECK_PX, MAX_PIXELS, decode, full_size, open_picture
from geoclip.data.workers import note


@dataclass(kw_only=True, slots=True, frozen=True)
class Resize:
    """What is done to large pictures; others stay as they are, byte for byte."""

    max_side_px: int | None = None  # of the longer side
    jpeg_quality: int = 90
    max_pixels: int = MAX_PIXELS

    def __call__(self, data: bytes, suffix: str) -> tuple[bytes, str]:
        """A picture and the suffix that it goes by.

        Raises:
            ValueError: it cannot be read.
        """
        if self.max_side_px is None or max(full_size(open_picture(data, self.max_pixels))) <= self.max_side_px:
            return data, suffix
        least_px = -(-self.max_side_px // 2)  # which leaves both sides twice that, where they were
        image = decode(data, least_px, max_pixels=self.max_pixels)
        image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.jpeg_quality)
        return file.getvalue(), "jpg"


def examine(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Decode a picture to its end. Returns the suffix that its format has in shards.

    Raises:
        ValueError: broken, or no picture; the message is a short reason.
    """
    beginning = data[:512].lstrip().lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script")):
        raise ValueError("HTML, no picture")
    kind = open_picture(data, max_pixels).format or ""
    decode(data, CHECK_PX, max_pixels=max_pixels)
    return SUFFIXES[kind][0]


def check_chunk(chunk: int, manifest: Manifest, source: ShardSource, max_pixels: int) -> list[Verdict]:
    """Find, read and decode the pictures of a chunk of planned rows."""
    planned = manifest.planned(chunk)
    return [_verdict(row, found, source, max_pixels) for row, found in zip(planned, source.find(planned), strict=True)]


def _verdict(row: Planned, found: Found, source: ShardSource, max_pixels: int) -> Verdict:
    suffix, reason = "", undecodable(row.key) or found.fault
    note(found.place, row.key)
    if not reason:
        try:
            suffix = examine(source.read(found.place), max_pixels)
        except FileNotFoundError:
            reason = MISSING
        except OSError as error:
            reason = f"file cannot be read ({type(error).__name__})"
        except ValueError as error:
            reason = str(error)
    return Verdict(place=found.place, suffix=suffix, reason=reason, id=row.id)
