"""Samples out of tar shards, one by one, and nothing that is broken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from webdataset.tariterators import tarfile_samples

from geoclip.data.augment import decode, evaluation_pixels
from geoclip.data.batch import Example, Skip
from geoclip.data.subset import Stretch

RawSample = dict[str, Any]
PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


def read_stretch(stretch: Stretch, skipped: list[Skip]) -> Iterator[RawSample]:
    """Undecoded samples at positions start … stop-1 of a tar, in order; damage is recorded in `skipped`.

    A shard that is cut, empty or no tar at all gives what it still holds.
    """
    name = Path(stretch.path).name
    faults: list[str] = []

    def record(error: BaseException) -> bool:
        faults.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return True

    position = 0
    for position, sample in enumerate(tarfile_samples([{"url": stretch.path}], handler=record), start=1):
        if position > stretch.start:
            yield sample
        if position == stretch.stop:
            return
    short = stretch.stop - max(position, stretch.start)
    detail = f" ({faults[0]})" if faults else ""
    skipped.extend(Skip(shard=name, key="", reason=f"shard ends early{detail}") for _ in range(short))


def place_of(sample: RawSample) -> tuple[float, float]:
    """Latitude and longitude of a sample in degrees.

    Raises:
        ValueError: no json, no numbers in it, or out of range; the message is the reason.
    """
    if "json" not in sample:
        raise ValueError("no json")
    try:
        place = json.loads(sample["json"])
        lat, lon = float(place["lat"]), float(place["lon"])
    except (ValueError, KeyError, TypeError):
        raise ValueError("json without numbers lat and lon") from None
    if not (math.isfinite(lat) and math.isfinite(lon) and -90 <= lat <= 90 and -180 <= lon <= 180):
        raise ValueError("coordinates out of range")
    return lat, lon


def read_example(
    sample: RawSample, pixels: Callable[..., Any], size_px: int, skipped: list[Skip]
) -> Example | None:
    """Decode a sample by `pixels(image, size_px, key)`; None, and the reason in `skipped`, when it is broken."""
    key = str(sample["__key__"])
    try:
        gps_deg = place_of(sample)
        data = next((sample[suffix] for suffix in PICTURE_SUFFIXES if suffix in sample), None)
        if data is None:
            raise ValueError("no picture")
        try:
            image = decode(data, size_px)
        except Exception as error:  # Pillow's decoders raise whatever they like on damaged bytes
            raise ValueError(f"unreadable picture ({type(error).__name__})") from error
        return Example(key=key, pixels_CHW=pixels(image, size_px, key), gps_deg=gps_deg)
    except ValueError as error:
        skipped.append(Skip(shard=Path(str(sample["__url__"])).name, key=key, reason=str(error)))
        return None


def read_examples(stretches: list[Stretch], size_px: int, skipped: list[Skip]) -> Iterator[Example]:
    """Every readable example of these stretches, in order, with the evaluation transform."""

    def pixels(image: Any, size: int, key: str) -> Any:
        return evaluation_pixels(image, size)

    for stretch in stretches:
        for sample in read_stretch(stretch, skipped):
            example = read_example(sample, pixels, size_px, skipped)
            if example is not None:
                yield example


def read_places(stretches: list[Stretch], count: int) -> list[tuple[float, float]]:
    """Coordinates of the first `count` samples of these stretches; no picture is decoded."""
    places: list[tuple[float, float]] = []
    for stretch in stretches:
        for sample in read_stretch(stretch, []):
            try:
                places.append(place_of(sample))
            except ValueError:
                continue
            if len(places) == count:
                return places
    return places
