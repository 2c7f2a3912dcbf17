"""The place that a photograph's own EXIF tells: shown beside a prediction, and never used by it."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from geoclip.data.places_json import require_place


def exif_place(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, or None where the file tells no place on Earth.

    Source: CIPA DC-008-2019 (Exif 2.32), section 4.6.6.
    """
    try:
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        lat = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "S")
        lon = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "W")
        require_place(lat, lon)
    except (
        Exception
    ):  # Pillow's readers raise whatever they like on damaged bytes; a photograph owes nobody a place
        return None
    return lat, lon


def _degrees(parts: tuple[float, float, float], side: str, negative: str) -> float:
    """Degrees, minutes, seconds and the hemisphere's letter."""
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return -value if side.strip("\x00 ").upper() == negative else value
