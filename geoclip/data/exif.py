"""The coordinates in a photograph's own EXIF: shown beside a prediction, and never used by it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from geoclip.data.places_json import require_place

log = logging.getLogger("geoclip")


def exif_place(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees; None where the file has none, or, with a line in the log, none of use.

    Source: CIPA DC-008-2019 (Exif 2.32), section 4.6.6.
    """
    try:
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # Pillow's readers raise whatever they like on corrupt bytes
        return None
    tags = ExifTags.GPS
    wanted = (tags.GPSLatitude, tags.GPSLatitudeRef, tags.GPSLongitude, tags.GPSLongitudeRef)
    values = [gps.get(tag) for tag in wanted]
    if values[0] is None and values[2] is None:
        return None
    try:
        lat, lon = _degrees(values[0], values[1], "NS"), _degrees(values[2], values[3], "EW")
        require_place(lat, lon)
    except (ValueError, TypeError, ArithmeticError) as error:
        seen = ", ".join(f"{tag.name}={_shown(value)}" for tag, value in zip(wanted, values, strict=True))
        log.warning("%s: its EXIF coordinates are not used: %s (%s)", path, error, seen)
        return None
    return lat, lon


def _degrees(parts: Any, side: Any, letters: str) -> float:
    """Degrees, minutes, seconds and the hemisphere's letter; seconds of 0/0 were not measured and count as 0.

    Raises:
        ValueError: a hemisphere that is not one of `letters`, or numbers that are not known.
    """
    text = side.decode("ascii", "replace") if isinstance(side, bytes) else str(side)
    letter = text.strip("\x00 ").upper()
    if len(letter) != 1 or letter not in letters:
        raise ValueError(f"the hemisphere must be {' or '.join(letters)}")
    numbers = [float(part) for part in (parts if isinstance(parts, Sequence) else [parts])]
    degrees, minutes, seconds = [*numbers, 0.0, 0.0][:3]
    seconds = 0.0 if math.isnan(seconds) else seconds
    if math.isnan(minutes) and degrees % 1:  # degrees as a fraction need none
        minutes = 0.0
    if not math.isfinite(degrees + minutes + seconds):
        raise ValueError("0/0 is no number")
    if degrees < 0 or not 0 <= minutes < 60 or not 0 <= seconds < 60:
        raise ValueError("degrees, minutes or seconds out of range")
    value = degrees + minutes / 60 + seconds / 3600
    return -value if letter == letters[1] else value


def _shown(value: Any) -> str:
    """A tag as the file has it: 0/0 is not nan."""
    if not isinstance(value, tuple):
        return repr(value)
    ratios = [
        f"{part.numerator}/{part.denominator}" if getattr(part, "denominator", 1) != 1 else f"{part}" for part in value
    ]
    return f"({', '.join(ratios)})"
