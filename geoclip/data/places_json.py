"""The coordinates in a sample's json, in the forms met in the wild: flat, nested and GeoJSON."""

from __future__ import annotations

import json
import math
from typing import Any

from geoclip.data.degrees import LATITUDE_LETTERS, LATITUDES, LONGITUDE_LETTERS, LONGITUDES, known_name, parse_degrees

FULL_CIRCLE = "longitude of 0 to 360 degrees, not -180 to 180"
NO_FIX = "coordinates are (0, 0)"
MAX_DEPTH = 4  # of nested objects
SHOWN_NAMES = 6


def place_of(text: bytes) -> tuple[float, float]:
    """Latitude and longitude in degrees.

    Args:
        text: a json object with lat and lon by any name of LATITUDES and LONGITUDES; or with such an object in it,
            under any name; or a GeoJSON Point, Feature or `geometry`, whose `coordinates` have the longitude first.

    Raises:
        ValueError: no such numbers, several different ones, or no place on Earth; the message is a short reason to
            count by.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("damaged json") from None
    if not isinstance(fields, dict):
        raise ValueError("json that is no object")
    lat, lon = fields.get("lat"), fields.get("lon")
    pair = (lat, lon) if isinstance(lat, float) and isinstance(lon, float) else _pair_of(fields)
    require_place(*pair)
    return pair


def _pair_of(fields: dict[str, Any]) -> tuple[float, float]:
    own = _pair_in(fields)
    pairs = [own] if own else list(dict.fromkeys(_nested_pairs(fields, MAX_DEPTH)))
    if len(pairs) > 1:
        raise ValueError("json with several different coordinates")
    if not pairs:
        names = ", ".join(sorted(map(str, fields))[:SHOWN_NAMES]) or "nothing"
        raise ValueError(f"json without numbers lat and lon (it has {names})")
    return pairs[0]


def _nested_pairs(fields: dict[str, Any], depth: int) -> list[tuple[float, float]]:
    """Of the objects in an object, the outermost that have any."""
    found: list[tuple[float, float]] = []
    for value in fields.values() if depth else ():
        if isinstance(value, dict):
            pair = _pair_in(value)
            found += [pair] if pair else _nested_pairs(value, depth - 1)
    return found


def _pair_in(fields: dict[str, Any]) -> tuple[float, float] | None:
    """The coordinates of this object itself; None where it names none.

    Raises:
        ValueError: it names some that are no numbers, or whose order nobody knows.
    """
    by_name = {known_name(str(name)): value for name, value in reversed(fields.items())}
    lat, lon = (next((n for n in names if n in by_name), "") for names in (LATITUDES, LONGITUDES))
    if lat and lon:
        return _number(lat, by_name[lat], LATITUDE_LETTERS), _number(lon, by_name[lon], LONGITUDE_LETTERS)
    listed = by_name.get("coordinates")
    if not isinstance(listed, list) or len(listed) not in (2, 3) or not all(map(_is_number, listed[:2])):
        return None
    if fields.get("type") == "Point":  # RFC 7946, section 3.1.1: longitude, latitude
        return float(listed[1]), float(listed[0])
    latitudes = [number for number in listed[:2] if abs(number) <= 90]
    if len(latitudes) != 1:  # else only one of them can be the latitude
        raise ValueError("json with coordinates of unknown order (GeoJSON has type Point)")
    return float(latitudes[0]), float(listed[0] if listed[1] == latitudes[0] else listed[1])


def _number(name: str, value: Any, letters: str) -> float:
    try:
        if _is_number(value):
            return float(value)
        if isinstance(value, str):
            return parse_degrees(value, letters)
    except (ValueError, OverflowError):
        pass
    kind = "null" if value is None else type(value).__name__
    raise ValueError(f"json without numbers lat and lon ({name} is {'no number' if kind == 'str' else kind})")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_place(lat: float, lon: float) -> None:
    """Refuse what no photograph has as its coordinates.

    Exactly (0, 0) is in the Gulf of Guinea, and what cameras and databases write where they have no coordinates.

    Raises:
        ValueError: not finite, (0, 0), out of range, or recognisably swapped; the message is the reason.
    """
    if lat == lon == 0:
        raise ValueError(NO_FIX)
    require_on_earth(lat, lon)


def place_fault(lat: float, lon: float) -> str:
    """Why `require_place` refuses these; empty where it does not."""
    try:
        require_place(lat, lon)
    except ValueError as error:
        return str(error)
    return ""


def require_on_earth(lat: float, lon: float) -> None:
    """Refuse what are no coordinates; (0, 0) are some, of a gallery say.

    Raises:
        ValueError: not finite, out of range, or or recognisably swapped; the message is the reason.
    """
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise ValueError("coordinates are not finite")
    if abs(lat) > 90 and abs(lat) <= 180 and abs(lon) <= 90:
        raise ValueError("latitude and longitude look swapped")
    if abs(lat) <= 90 and 180 < lon <= 360:
        raise ValueError(FULL_CIRCLE)
    if abs(lat) > 90 or abs(lon) > 180:
        raise ValueError("coordinates out of range")
