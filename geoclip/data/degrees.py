"""Degrees as people write them: names of the two coordinates, and a cell's text as a number."""

from __future__ import annotations

import re

LATITUDES = ("lat", "latitude", "gpslat", "gpslatitude", "decimallatitude", "geolat", "geolatitude")
LONGITUDES = ("lon", "lng", "long", "longitude", "gpslon", "gpslng", "gpslong", "gpslongitude", "decimallongitude",
              "geolon", "geolng", "geolong", "geolongitude")  # fmt: skip
LONGEST = 60  # characters of degrees, minutes and seconds; the pattern below takes long for thousands of digits
LATITUDE_LETTERS, LONGITUDE_LETTERS = "NS", "EW"  # the second of each is negative

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
    """A column's or field's name without case, separators and unit: `GPS Latitude (deg)` is gpslatitude."""
    return re.sub(r"(?<=.)(?:deg|degrees|wgs84)$", "", re.sub(r"[\W_]+", "", name.lower()))


def parse_degrees(text: str, letters: str) -> float:
    """One coordinate in degrees, written as a number, with a decimal comma, or in degrees, minutes and seconds.

    Args:
        text: `48.8584`, `48,8584`, `48°51'30.24"N`, `48:51:30`, `2.35 W`, `48 deg 51' 30.24" N`.
        letters: LATITUDE_LETTERS or LONGITUDE_LETTERS.

    Raises:
        ValueError: anything that can be read in more than one way, such as `48 51` (a pair, or minutes?).
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if _DECIMAL_COMMA.fullmatch(text):  # nobody groups thousands below 180
        text = text.replace(",", ".")
    if "_" not in text:  # float reads 1_0 as 10
        try:
            return float(text)
        except ValueError:
            pass
    parts = _PARTS.fullmatch(text) if len(text) <= LONGEST else None
    if parts is None:
        raise ValueError("coordinates are no numbers")
    letter = "".join(parts[name] or "" for name in ("before", "after")).upper()
    degrees, minutes, seconds = (parts[name] for name in ("degrees", "minutes", "seconds"))
    whole = [part for part, finer in ((degrees, minutes), (minutes, seconds)) if finer]
    if not (letter or parts["mark"]) or any(not part.isdigit() for part in whole):
        raise ValueError("coordinates are no numbers")
    if len(letter) > 1 or (letter and (letter not in letters or parts["sign"])):
        raise ValueError(f"hemisphere {letter} does not belong to this coordinate")
    values = [float((part or "0").replace(",", ".")) for part in (degrees, minutes, seconds)]
    if max(values[1:]) >= 60:
        raise ValueError("60 or more minutes or seconds")
    value = values[0] + values[1] / 60 + values[2] / 3600
    return -value if parts["sign"] == "-" or letter == letters[1] else value
