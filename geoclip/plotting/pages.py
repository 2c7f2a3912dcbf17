"""HTML pages that need no network: templates, pictures as data URIs, and a content security policy."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

# The browser enforces that no script in a page loads anything.
NOTHING_FETCHED = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped, and a missing one is an error."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values, nothing_fetched=NOTHING_FETCHED)


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of an image file, `kind` png or jpeg, as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def photo_uri(photo: Image.Image, longest_px: int, quality: int = 80, *, fine_color: bool = False) -> str:
    """A picture as a JPEG in a data URI, at most `longest_px` on either side.

    `fine_color` keeps the colours of small dots, with a third more bytes.
    """
    small = photo.convert("RGB")
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0 if fine_color else 2)
    return data_uri(buffer.getvalue(), "jpeg")
