"""The place that a sample's json tells, in the spellings met in the wild."""

from __future__ import annotations

import json
import math

NO_FIX = "coordinates are (0, 0)"
LATITUDES, LONGITUDES = ("lat", "latitude"), ("lon", "lng", "longitude")


def place_of(text: bytes) -> tuple[float, float]:
    """Latitude and longitude in degrees.

    Args:
        text: a json object with lat, lon or LAT, LON or latitude, longitude, in any case.

    Raises:
        ValueError: no such numbers, or no place on Earth; the message is a short reason to count by.
    """
    try:
        fields = json.loads(text)
        if "lat" not in fields or "lon" not in fields:
            fields = {str(name).lower(): value for name, value in fields.items()}
        lat = float(next(fields[name] for name in LATITUDES if name in fields))
        lon = float(next(fields[name] for name in LONGITUDES if name in fields))
    except (ValueError, TypeError, AttributeError, StopIteration, RecursionError):
        raise ValueError("json without numbers lat and lon") from None
    require_place(lat, lon)
    return lat, lon


def require_place(lat: float, lon: float) -> None:
    """Refuse what no photograph has as its coordinates.

    Exactly (0, 0) is in the Gulf of Guinea, and what cameras and databases write where they have no coordinates.

    Raises:
        ValueError: not finite, (0, 0), out of range, or swapped where that can be told; the message is the reason.
    """
    if lat == lon == 0:
        raise ValueError(NO_FIX)
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise ValueError("coordinates are not finite")
    if abs(lat) > 90 and abs(lat) <= 180 and abs(lon) <= 90:
        raise ValueError("latitude and longitude look swapped")
    if abs(lat) > 90 or abs(lon) > 180:
        raise ValueError("coordinates out of range")
