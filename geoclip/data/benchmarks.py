"""Benchmarks as people have them: photographs in a folder with a CSV of coordinates, or a file of features."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoclip.console import printable
from geoclip.data.account import account_of
from geoclip.data.batch import Batch, Skip
from geoclip.data.picture_kinds import PICTURE_SUFFIXES, suffix_of, undecodable, unreadable_reason
from geoclip.data.places_json import place_of, require_place
from geoclip.data.plain_files import read_plain
from geoclip.data.tables import read_coordinates
from geoclip.data.transforms import Preprocessing, evaluation_pixels_of
from geoclip.errors import DataError

log = logging.getLogger("geoclip")

MISSING = "missing picture"


@dataclass(kw_only=True, slots=True, frozen=True)
class Photo:
    """A photograph on disk and where it was taken; the place is None where nobody says."""

    key: str
    path: Path
    gps_deg: tuple[float, float] | None


def read_photos(root: Path, metadata: str = "") -> tuple[list[Photo], list[Skip]]:
    """The photographs of a benchmark and the rows that have none, or no coordinates.

    Args:
        root: a folder with a CSV (see `read_coordinates`) and, anywhere below it, the photographs. A name in the CSV
            may hold folders (`45/77/3228511372.jpg`) that are on disk or not, be written with `_` for `/`, or lack
            its suffix.
        metadata: the CSV, below `root` or absolute; found by itself where root holds exactly one.

    Raises:
        DataError: no or several CSVs, no picture column, a name that fits two photographs, or not one photograph.
    """
    table = metadata_file(root, metadata)
    rows = read_coordinates(table, "benchmark")
    if "key" not in rows:
        raise DataError(
            f"{table} names no pictures; name the column of their files IMG_FILE, IMG_ID, file_name, name or id"
        )
    keys = rows["key"].astype(str).tolist()
    index = _photo_index(root)
    last_parts = Counter(key.rsplit("/", 1)[-1] for key in keys)
    photos, skipped = [], list[Skip]()
    for key, lat, lon in zip(keys, rows["lat"], rows["lon"], strict=True):
        try:
            require_place(lat, lon)
        except ValueError as error:
            skipped.append(Skip(shard=table.name, key=key, reason=str(error)))
            continue
        flat = key.rsplit("/", 1)[-1]
        found = index.get(key) or index.get(key.replace("/", "_"))
        if (
            not found and last_parts[flat] == 1
        ):  # else a/1.jpg, being missing, would get the picture of b/1.jpg
            found = index.get(flat)
        if not found:
            skipped.append(Skip(shard=table.name, key=key, reason=undecodable(key) or MISSING))
        elif len(found) > 1:
            raise DataError(
                f"{key} of {table} fits {found[0]} and {found[1]}; set benchmark.root to the folder of one of them "
                f"and benchmark.metadata to {table.resolve()}"
            )
        else:
            photos.append(Photo(key=key, path=found[0], gps_deg=(float(lat), float(lon))))
    if not photos:
        raise DataError(
            f"none of the {len(rows)} photographs of {table} is in {root}, first {skipped[0].key}: {skipped[0].reason}"
        )
    return photos, skipped


def list_photos(place: Path) -> tuple[list[Photo], list[Skip]]:
    """One photograph, or all below a folder, and what is no photograph there.

    A json with lat and lon beside a photograph, as in the shards, is where it was taken.

    Raises:
        DataError: nothing there that can be decoded.
    """
    if place.is_file() and (reason := undecodable(place.name)):
        raise DataError(f"{place}: {reason}")
    found, skipped = ([place], list[Skip]()) if place.is_file() else photos_below(place)
    if not found:
        what = "holds no photograph" if place.is_dir() else "is neither a file nor a folder"
        seen = "".join(f"; {line}" for line in account_of(str(place), 0, skipped, "files").skipped.lines())
        raise DataError(f"{place} {what} (.{', .'.join(PICTURE_SUFFIXES)}){seen}")
    root = place.parent if place.is_file() else place
    unusable: dict[str, list[Path]] = {}
    photos = [
        Photo(
            key=printable(path.relative_to(root).as_posix(), keep=""),
            path=path,
            gps_deg=_place_beside(path, unusable),
        )
        for path in found
    ]
    for reason, jsons in unusable.items():
        log.warning(
            "%d jsons beside photographs have no coordinates: %s, first %s", len(jsons), reason, jsons[0]
        )
    return photos, skipped


def photo_batches(photos: list[Photo], preprocessing: Preprocessing, batch_size: int) -> Iterator[Batch]:
    """Batches as evaluation sees them; a broken photograph is left out and named in `skipped`.

    While a batch is with the model, threads decode the next one.
    """

    def read(photo: Photo) -> NDArray[np.uint8] | Skip:
        try:
            return evaluation_pixels_of(read_plain(photo.path), preprocessing)
        except OSError as error:
            reason = f"unreadable file ({error.strerror})"
        except ValueError as error:
            reason = str(error)
        return Skip(shard=str(photo.path.parent), key=photo.path.name, reason=reason)

    rest = iter(photos)
    with ThreadPoolExecutor() as pool:
        following = list(islice(rest, batch_size))
        reading = pool.map(read, following)
        while following:
            read_chunk = list(zip(following, reading, strict=True))
            following = list(islice(rest, batch_size))
            reading = pool.map(read, following)
            good = [(photo, pixels) for photo, pixels in read_chunk if not isinstance(pixels, Skip)]
            stacked = (
                np.stack([pixels for _, pixels in good])
                if good
                else np.empty((0, *preprocessing.shape), np.uint8)
            )
            places = [photo.gps_deg or (float("nan"), float("nan")) for photo, _ in good]
            yield Batch(
                images=torch.from_numpy(stacked),
                gps_deg_B2=torch.tensor(places, dtype=torch.float64).reshape(-1, 2),
                keys=[photo.key for photo, _ in good],
                skipped=[found for _, found in read_chunk if isinstance(found, Skip)],
            )


def read_features(path: Path, feature_dim: int) -> tuple[Tensor, Tensor, list[str]]:
    """Features computed before: (N, F) float32, (N, 2) degrees float64, keys.

    Args:
        path: a .npz with the arrays features (N, F), lat (N,), lon (N,) and, if the images have names, key (N,).
        feature_dim: F of the model.

    Raises:
        DataError: an array is missing, of another length or width, or holds what is no number or no place.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("np.savez writes such files")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"image_features={path} cannot be read as .npz: {error}") from error
    if absent := {"features", "lat", "lon"} - set(found):
        raise DataError(
            f"image_features={path} lacks the arrays {', '.join(sorted(absent))}; it has {', '.join(found)}"
        )
    features, lat, lon = (_numbers(path, name, found[name]) for name in ("features", "lat", "lon"))
    if features.ndim != 2 or features.shape[1] != feature_dim or not len(features):
        raise DataError(
            f"image_features={path}: features have the shape {features.shape}, this model takes (N, {feature_dim})"
        )
    keys = found.get("key", np.arange(len(features)))
    columns = {"lat": lat, "lon": lon, "key": keys}
    if wrong := {name: column.shape for name, column in columns.items() if column.shape != (len(features),)}:
        raise DataError(
            f"image_features={path}: {len(features)} rows of features, but "
            + ", ".join(f"{name} of the shape {shape}" for name, shape in wrong.items())
        )
    good = np.isfinite(features).all(axis=1) & (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
    if not good.all():
        raise DataError(
            f"image_features={path}: row {int(np.flatnonzero(~good)[0])} is no number or no place on Earth"
        )
    gps_deg = torch.from_numpy(np.stack((lat, lon), axis=1))
    return torch.from_numpy(features), gps_deg, keys.astype(str).tolist()


def _numbers(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Features as float32, coordinates as float64."""
    try:
        with np.errstate(over="ignore"):
            return array.astype(np.float32 if name == "features" else np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"image_features={path}: {name} holds no numbers ({error})") from error


def metadata_file(root: Path, metadata: str = "") -> Path:
    """The CSV of a benchmark: `metadata`, below `root` or absolute, or the only one that root holds.

    Raises:
        DataError: root holds none, or several.
    """
    if metadata:
        return root / metadata
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise DataError(
            f"{root} must hold one CSV with the photographs' coordinates (found: {names}); set benchmark.metadata"
        )
    return tables[0]


def _place_beside(photo: Path, unusable: dict[str, list[Path]]) -> tuple[float, float] | None:
    """The coordinates in a photograph's json; one that has none is noted in `unusable` by its reason."""
    beside = photo.with_suffix(".json")
    try:
        return place_of(read_plain(beside))
    except OSError:
        return None
    except ValueError as error:
        unusable.setdefault(str(error), []).append(beside)
        return None


def photos_below(folder: Path) -> tuple[list[Path], list[Skip]]:
    """Photographs in a folder and its folders, also such as are linked in, and other files than belong beside them.

    Hidden files are neither.
    """
    found: list[Path] = []
    skipped: list[Skip] = []
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, folder)
        skipped.append(Skip(shard=name, key="", reason=f"unreadable folder ({error.strerror})"))

    for here, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        names = [] if real in seen else [name for name in files if not name.startswith(".")]
        for name in names:
            if suffix_of(name) in PICTURE_SUFFIXES:
                found.append(Path(here, name))
            elif reason := unreadable_reason(name):
                skipped.append(
                    Skip(shard=os.path.relpath(os.path.join(here, name), folder), key="", reason=reason)
                )
        seen.add(real)
    return sorted(found), skipped


def _photo_index(root: Path) -> dict[str, list[Path]]:
    """Photographs by every name that a CSV may use for them; the path below root is exact and fits but one."""
    index: dict[str, list[Path]] = {}
    below = {path: path.relative_to(root).as_posix() for path in photos_below(root)[0]}
    for path, relative in below.items():
        parts = relative.split("/")
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        names = {name for tail in tails for name in (tail, tail.removesuffix(path.suffix))}
        for name in names | {name.replace("/", "_") for name in names}:
            index.setdefault(name, []).append(path)
    return index | {relative: [path] for path, relative in below.items()}
