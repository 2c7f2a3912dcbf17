"""Coordinates from text in degrees, from JSON beside a picture, and from EXIF."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

log = logging.getLogger("geoclip")

LATITUDES = ("lat", "latitude", "gpslat", "gpslatitude", "decimallatitude", "geolat", "geolatitude")
LONGITUDES = ("lon", "lng", "long", "longitude", "gpslon", "gpslng", "gpslong", "gpslongitude", "decimallongitude",
              "geolon", "geolng", "geolong", "geolongitude")  # fmt: skip
MAX_CHARACTERS = 60  # of degrees, minutes and seconds; the pattern below takes cubic time
LATITUDE_LETTERS, LONGITUDE_LETTERS = "NS", "EW"  # the second letter is negative

_NUMBER = r"\d+(?:[.,]\d*)?|[.,]\d+"
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,\d*|,\d+)")
_PARTS = re.compile(
    rf"""(?P<before>[NSEW])?\s*(?P<sign>[+-])?\s*
    (?P<degrees>{_NUMBER})\s*(?P<mark>°|º|deg\b|:)?\s*
    (?:(?P<minutes>{_NUMBER})\s*(?:['′’´]|:)?\s*
       (?:(?P<seconds>{_NUMBER})\s*(?:["″”]|''|’’|′′)?)?)?\s*
    (?P<after>[NSEW])?""",
    re.VERBOSE | re.IGNORECASE,
)


def known_name(name: str) -> str:
    """A column's or field's name without case, separators and unit: `GPS Latitude (deg)` gives gpslatitude."""
    return re.sub(r"(?<=.)(?:deg|degrees|wgs84)$", "", re.sub(r"[\W_]+", "", name.lower()))


def parse_degrees(text: str, letters: str) -> float:
    """One coordinate in degrees: a number, with point or decimal comma, or degrees, minutes and seconds.

    Args:
        text: `48.8584`, `48,8584`, `48°51'30.24"N`, `48:51:30`, `2.35 W`, `48 deg 51' 30.24" N`.
        letters: LATITUDE_LETTERS or LONGITUDE_LETTERS.

    Raises:
        ValueError: anything ambiguous, such as `48 51` (a pair, or minutes?).
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if _DECIMAL_COMMA.fullmatch(text):  # no thousands are grouped below 180
        text = text.replace(",", ".")
    if "_" not in text:  # float reads 1_0 as 10
        try:
            return float(text)
        except ValueError:
            pass
    parts = _PARTS.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if parts is None:
        raise ValueError("coordinates are not numbers")
    letter = "".join(parts[name] or "" for name in ("before", "after")).upper()
    degrees, minutes, seconds = (parts[name] for name in ("degrees", "minutes", "seconds"))
    integers = [part for part, finer in ((degrees, minutes), (minutes, seconds)) if finer]
    if not (letter or parts["mark"]) or any(not part.isdigit() for part in integers):
        raise ValueError("coordinates are not numbers")
    if len(letter) > 1 or (letter and (letter not in letters or parts["sign"])):
        raise ValueError(f"hemisphere {letter} does not belong to this coordinate")
    values = [float((part or "0").replace(",", ".")) for part in (degrees, minutes, seconds)]
    if max(values[1:]) >= 60:
        raise ValueError("60 or more minutes or seconds")
    value = values[0] + values[1] / 60 + values[2] / 3600
    return -value if parts["sign"] == "-" or letter == letters[1] else value


FULL_CIRCLE = "longitude of 0 to 360 degrees, not -180 to 180"
NO_FIX = "coordinates are (0, 0)"
MAX_DEPTH = 4  # of nested objects
SHOWN_NAMES = 6
NOT_NUMBERS = "json without numbers lat and lon"


def coordinates_of(text: bytes) -> tuple[float, float]:
    """Latitude and longitude in degrees.

    Args:
        text: a JSON object with lat and lon by any name of LATITUDES and LONGITUDES; or with such an object in it,
            under any name; or a GeoJSON Point, Feature or `geometry`, whose `coordinates` have the longitude first.

    Raises:
        ValueError: no coordinates, several different ones, or out of range; the message is a short reason for counts.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("corrupt json") from None
    if not isinstance(fields, dict):
        raise ValueError("json that is not an object")
    lat, lon = fields.get("lat"), fields.get("lon")
    pair = (lat, lon) if isinstance(lat, float) and isinstance(lon, float) else _pair_of(fields)
    require_coordinates(*pair)
    return pair


def _pair_of(fields: dict[str, Any]) -> tuple[float, float]:
    own = _pair_in(fields)
    pairs = [own] if own else list(dict.fromkeys(_nested_pairs(fields, MAX_DEPTH)))
    if len(pairs) > 1:
        raise ValueError("json with several different coordinates")
    if not pairs:
        names = ", ".join(sorted(map(str, fields))[:SHOWN_NAMES]) or "nothing"
        raise ValueError(f"{NOT_NUMBERS} (it has {names})")
    return pairs[0]


def _nested_pairs(fields: dict[str, Any], depth: int) -> list[tuple[float, float]]:
    """Coordinates of nested objects; not searched below an object that has some."""
    found: list[tuple[float, float]] = []
    for value in fields.values() if depth else ():
        if isinstance(value, dict):
            pair = _pair_in(value)
            found += [pair] if pair else _nested_pairs(value, depth - 1)
    return found


def _pair_in(fields: dict[str, Any]) -> tuple[float, float] | None:
    """The coordinates of this object itself, if any. Raises ValueError: not numbers, or of unknown order."""
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
    if len(latitudes) != 1:  # both could be the latitude, or neither
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
    raise ValueError(f"{NOT_NUMBERS} ({name} is {'not a number' if kind == 'str' else kind})")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_coordinates(lat: float, lon: float) -> None:
    """As `require_on_earth`, and reject (0, 0), which cameras and databases write for unknown coordinates."""
    if lat == lon == 0:
        raise ValueError(NO_FIX)
    require_on_earth(lat, lon)


def coordinates_fault(lat: float, lon: float) -> str:
    """Why `require_coordinates` rejects these; empty if they are valid."""
    try:
        require_coordinates(lat, lon)
    except ValueError as error:
        return str(error)
    return ""


def require_on_earth(lat: float, lon: float) -> None:
    """Raise ValueError with the reason for coordinates that are not finite, out of range or recognisably swapped."""
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise ValueError("coordinates are not finite")
    if abs(lat) > 90 and abs(lat) <= 180 and abs(lon) <= 90:
        raise ValueError("latitude and longitude look swapped")
    if abs(lat) <= 90 and 180 < lon <= 360:
        raise ValueError(FULL_CIRCLE)
    if abs(lat) > 90 or abs(lon) > 180:
        raise ValueError("coordinates out of range")


def exif_coordinates(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees; None if the file has none, or, with a warning, none that are valid.

    Source: CIPA DC-008-2019 (Exif 2.32), section 4.6.6.
    """
    try:
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # Pillow raises exceptions of any kind on corrupt bytes
        return None
    tags = ExifTags.GPS
    wanted = (tags.GPSLatitude, tags.GPSLatitudeRef, tags.GPSLongitude, tags.GPSLongitudeRef)
    values = [gps.get(tag) for tag in wanted]
    if values[0] is None and values[2] is None:
        return None
    try:
        lat, lon = _degrees(values[0], values[1], LATITUDE_LETTERS), _degrees(values[2], values[3], LONGITUDE_LETTERS)
        require_coordinates(lat, lon)
    except (ValueError, TypeError, ArithmeticError) as error:
        shown = ", ".join(f"{tag.name}={_shown(value)}" for tag, value in zip(wanted, values, strict=True))
        log.warning("%s: EXIF coordinates ignored: %s (%s)", path, error, shown)
        return None
    return lat, lon


def _degrees(parts: Any, side: Any, letters: str) -> float:
    """Degrees from degrees, minutes, seconds and hemisphere; seconds of 0/0 are unknown and count as 0."""
    text = side.decode("ascii", "replace") if isinstance(side, bytes) else str(side)
    letter = text.strip("\x00 ").upper()
    if len(letter) != 1 or letter not in letters:
        raise ValueError(f"the hemisphere must be {' or '.join(letters)}")
    numbers = [float(part) for part in (parts if isinstance(parts, Sequence) else [parts])]
    degrees, minutes, seconds = [*numbers, 0.0, 0.0][:3]
    seconds = 0.0 if math.isnan(seconds) else seconds
    if math.isnan(minutes) and degrees % 1:  # degrees are a fraction already
        minutes = 0.0
    if not math.isfinite(degrees + minutes + seconds):
        raise ValueError("0/0 is not a number")
    if degrees < 0 or not 0 <= minutes < 60 or not 0 <= seconds < 60:
        raise ValueError("degrees, minutes or seconds out of range")
    value = degrees + minutes / 60 + seconds / 3600
    return -value if letter == letters[1] else value


def _shown(value: Any) -> str:
    """A tag as in the file: 0/0 instead of nan."""
    if not isinstance(value, tuple):
        return repr(value)
    ratios = (
        f"{part.numerator}/{part.denominator}" if getattr(part, "denominator", 1) != 1 else part for part in value
    )
    return f"({', '.join(map(str, ratios))})"
