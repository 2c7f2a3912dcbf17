"""The pictures of a study's page, held by the page itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from geoclip.drawing.pages import data_uri, photo_uri
from geoclip.errors import DataError

PICTURE_PX = 1600
LARGE_BYTES = 200_000  # a larger PNG is a map: it becomes a JPEG in the page
LIGHT = 200  # of 255: a picture with such a corner is a chart on white, turned dark with the page
FIRST = (
    "swept",
    "curves",
    "continents",
    "wins",
    "scales",
)  # the figures' order; the first is the study's face


@dataclass(kw_only=True, slots=True, frozen=True)
class Picture:
    """A picture that is in the page itself; a chart, on white, turns dark with it."""

    address: str
    text: str
    is_chart: bool


def pictures_in(folder: Path) -> list[Path]:
    """The PNGs of a study's folder: its face first, the others in the order in which they are read."""

    def place(path: Path) -> tuple[int, str]:
        return next((n for n, name in enumerate(FIRST) if path.stem.startswith(name)), len(FIRST)), path.name

    return sorted(folder.glob("*.png"), key=place)


def picture_of(path: Path, longest_px: int = PICTURE_PX) -> Picture:
    """The file as it is; a large one, or one to be shown small, as a JPEG.

    Raises:
        DataError: it is no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            corner = image.convert("RGB").getpixel((0, 0))
            is_chart = isinstance(corner, tuple) and min(corner) >= LIGHT
            small = longest_px < PICTURE_PX or path.stat().st_size > LARGE_BYTES
            address = photo_uri(image, longest_px, quality=84, fine_color=True) if small else ""
    except OSError as error:
        raise DataError(
            f"{path} is no picture ({error}); draw it again with python -m geoclip.study"
        ) from None
    kind = "png" if path.suffix == ".png" else "jpeg"
    return Picture(
        address=address or data_uri(path.read_bytes(), kind),
        text=path.stem.replace("_", " "),
        is_chart=is_chart,
    )
