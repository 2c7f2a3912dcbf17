"""Benchmarks as people have them: photographs in a folder with a CSV of coordinates, or a file of features."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoclip.data.account import account_of
from geoclip.data.batch import Batch, Skip
from geoclip.data.coordinates import coordinates_fault, coordinates_of
from geoclip.data.picture_sources import Wanted, as_path, last_part, open_pictures
from geoclip.data.pictures import PICTURE_SUFFIXES, suffix_of, undecodable, unreadable_reason
from geoclip.data.tables import read_coordinates
from geoclip.data.transforms import Preprocessing, evaluation_pixels_of
from geoclip.errors import DataError
from geoclip.system.console import printable
from geoclip.system.files import files_below, read_regular

log = logging.getLogger("geoclip")


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
    last_parts = Counter(map(last_part, keys))
    wanted = [Wanted(as_path(key), last_parts[last_part(key)] == 1) for key in keys]
    with tempfile.TemporaryDirectory() as scratch:
        pictures = open_pictures(root)
        pictures.prepare(Path(scratch))
        places = pictures.find(wanted)
    photos, skipped = [], list[Skip]()
    for key, found, lat, lon in zip(keys, places, rows["lat"], rows["lon"], strict=True):
        if reason := coordinates_fault(lat, lon) or undecodable(key) or (found.fault if not found.fits else ""):
            skipped.append(Skip(shard=table.name, key=key, reason=reason))
        elif found.fits:
            raise DataError(
                f"{key} of {table} fits {root / found.fits[0]} and {root / found.fits[1]}; set benchmark.root to the "
                f"folder of one of them and benchmark.metadata to {table.resolve()}"
            )
        else:
            photos.append(Photo(key=key, path=root / found.place, gps_deg=(float(lat), float(lon))))
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
            key=printable(path.relative_to(root).as_posix(), keep=""), path=path, gps_deg=_place_beside(path, unusable)
        )
        for path in found
    ]
    for reason, jsons in unusable.items():
        log.warning("%d jsons beside photographs have no coordinates: %s, first %s", len(jsons), reason, jsons[0])
    return photos, skipped


def photo_batches(photos: list[Photo], preprocessing: Preprocessing, batch_size: int) -> Iterator[Batch]:
    """Batches as evaluation sees them; a broken photograph is left out and named in `skipped`.

    While a batch is with the model, threads decode the next one.
    """

    def read(photo: Photo) -> NDArray[np.uint8] | Skip:
        try:
            return evaluation_pixels_of(read_regular(photo.path), preprocessing)
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
                np.stack([pixels for _, pixels in good]) if good else np.empty((0, *preprocessing.shape), np.uint8)
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
    numbers = {}
    for name, dtype in (("features", np.float32), ("lat", np.float64), ("lon", np.float64)):
        try:
            with np.errstate(over="ignore"):
                numbers[name] = found[name].astype(dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"image_features={path}: {name} holds no numbers ({error})") from error
    features, lat, lon = numbers.values()
    if features.ndim != 2 or features.shape[1] != feature_dim or not len(features):
        raise DataError(
            f"image_features={path}: features have the shape {features.shape}, this model takes (N, {feature_dim})"
        )
    keys = found.get("key", np.arange(len(features)))
    for name, column in (("lat", lat), ("lon", lon), ("key", keys)):
        if column.shape != features.shape[:1]:
            raise DataError(
                f"image_features={path}: {len(features)} rows of features, but {name} of the shape {column.shape}"
            )
    good = np.isfinite(features).all(axis=1) & (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
    if not good.all():
        raise DataError(f"image_features={path}: row {int(np.flatnonzero(~good)[0])} is no number or no place on Earth")
    gps_deg = torch.from_numpy(np.stack((lat, lon), axis=1))
    return torch.from_numpy(features), gps_deg, keys.astype(str).tolist()


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
        return coordinates_of(read_regular(beside))
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

    def skip(path: str, reason: str) -> None:
        skipped.append(Skip(shard=os.path.relpath(path, folder), key="", reason=reason))

    for entry in files_below(folder, lambda error: skip(error.filename, f"unreadable folder ({error.strerror})")):
        if suffix_of(entry.name) in PICTURE_SUFFIXES:
            found.append(Path(entry.path))
        elif reason := unreadable_reason(entry.name):
            skip(entry.path, reason)
    return sorted(found), skipped
