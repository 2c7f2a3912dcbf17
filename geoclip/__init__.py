"""geoclip: train, evaluate, take apart and improve GeoCLIP (NeurIPS 2023), worldwide image geo-localisation.

>>> from geoclip import GeoCLIP, LocationEncoder, ImageEncoder, GPSQueue  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoclip.factory.loading import load, load_location_encoder
    from geoclip.model.embedding import embed_locations
    from geoclip.model.geoclip import GeoCLIP
    from geoclip.model.image_encoder import ImageEncoder
    from geoclip.model.location_encoder import LocationEncoder
    from geoclip.model.queue import GPSQueue

__version__ = "0.1.0"
__all__ = ["GPSQueue", "GeoCLIP", "ImageEncoder", "LocationEncoder", "embed_locations", "load", "load_location_encoder"]

_MODULES = {
    "GeoCLIP": "geoclip.model.geoclip",
    "GPSQueue": "geoclip.model.queue",
    "ImageEncoder": "geoclip.model.image_encoder",
    "LocationEncoder": "geoclip.model.location_encoder",
    "embed_locations": "geoclip.model.embedding",
    "load": "geoclip.factory.loading",
    "load_location_encoder": "geoclip.factory.loading",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` on first use: torch is slow to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'geoclip' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
