"""Benchmarks on disk: photographs in a folder with a CSV of coordinates, or a file of features."""

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

from geoclip.data.batch import Batch, Skip, account_of
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
    """A photograph on disk and its coordinates in degrees; None if they are unknown."""

    key: str
    path: Path
    gps_deg: tuple[float, float] | None


def read_photos(root: Path, metadata: str = "") -> tuple[list[Photo], list[Skip]]:
    """The photographs of a benchmark, and the rows without a photograph or without coordinates.

    Args:
        root: a folder with a CSV (see `read_coordinates`) and, anywhere below it, the photographs. A name in the CSV
            may contain folders (`45/77/3228511372.jpg`) that exist or not, use `_` for `/`, or lack its suffix.
        metadata: see `metadata_file`.

    Raises:
        DataError: no or several CSVs, no picture column, a name that fits two photographs, or no photograph at all.
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
        matches = pictures.find(wanted)
    photos, skipped = [], list[Skip]()
    for key, match, lat, lon in zip(keys, matches, rows["lat"], rows["lon"], strict=True):
        if reason := coordinates_fault(lat, lon) or undecodable(key) or (match.fault if not match.fits else ""):
            skipped.append(Skip(shard=table.name, key=key, reason=reason))
        elif match.fits:
            raise DataError(
                f"{key} of {table} fits {root / match.fits[0]} and {root / match.fits[1]}; set benchmark.root to the "
                f"folder of one of them and benchmark.metadata to {table.resolve()}"
            )
        else:
            photos.append(Photo(key=key, path=root / match.place, gps_deg=(float(lat), float(lon))))
    if not photos:
        raise DataError(
            f"none of the {len(rows)} photographs of {table} is in {root}, first {skipped[0].key}: {skipped[0].reason}"
        )
    return photos, skipped


def list_photos(path: Path) -> tuple[list[Photo], list[Skip]]:
    """One photograph, or all below a folder, and the other files there. Raises DataError: none that can be decoded.

    The coordinates come from a JSON file of the same name beside the photograph, as in the shards.
    """
    if path.is_file() and (reason := undecodable(path.name)):
        raise DataError(f"{path}: {reason}")
    found, skipped = ([path], list[Skip]()) if path.is_file() else photos_below(path)
    if not found:
        fault = "contains no photograph" if path.is_dir() else "is neither a file nor a folder"
        reasons = "".join(f"; {line}" for line in account_of(str(path), 0, skipped, "files").skipped.lines())
        raise DataError(f"{path} {fault} (.{', .'.join(PICTURE_SUFFIXES)}){reasons}")
    root = path.parent if path.is_file() else path
    faulty: dict[str, list[Path]] = {}
    photos = []
    for file in found:
        key, beside, gps_deg = printable(file.relative_to(root).as_posix(), keep=""), file.with_suffix(".json"), None
        try:
            gps_deg = coordinates_of(read_regular(beside))
        except OSError:
            pass  # there is none
        except ValueError as error:
            faulty.setdefault(str(error), []).append(beside)
        photos.append(Photo(key=key, path=file, gps_deg=gps_deg))
    for reason, jsons in faulty.items():
        log.warning("%d JSON files beside photographs have no coordinates: %s, first %s", len(jsons), reason, jsons[0])
    return photos, skipped


def photo_batches(photos: list[Photo], preprocessing: Preprocessing, batch_size: int) -> Iterator[Batch]:
    """Batches preprocessed for evaluation; a corrupt photograph is omitted and listed in `skipped`.

    Threads decode the next batch while the caller uses the current one.
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
        chunk = list(islice(rest, batch_size))
        reading = pool.map(read, chunk)
        while chunk:
            decoded = list(zip(chunk, reading, strict=True))
            chunk = list(islice(rest, batch_size))
            reading = pool.map(read, chunk)
            good = [(photo, pixels) for photo, pixels in decoded if not isinstance(pixels, Skip)]
            images = np.stack([pixels for _, pixels in good]) if good else np.empty((0, *preprocessing.shape), np.uint8)
            gps_deg = [photo.gps_deg or (float("nan"), float("nan")) for photo, _ in good]
            yield Batch(
                images=torch.from_numpy(images),
                gps_deg_B2=torch.tensor(gps_deg, dtype=torch.float64).reshape(-1, 2),
                keys=[photo.key for photo, _ in good],
                skipped=[skip for _, skip in decoded if isinstance(skip, Skip)],
            )


def read_features(path: Path, feature_dim: int) -> tuple[Tensor, Tensor, list[str]]:
    """Precomputed features: (N, F) float32, (N, 2) degrees float64, keys.

    Args:
        path: a .npz with the arrays features (N, F), lat (N,), lon (N,) and optionally key (N,), the images' names.
        feature_dim: F of the model.

    Raises:
        DataError: an array is missing, has the wrong shape, or contains a value that is not a number or out of range.
    """
    where = f"image_features={path}"
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not written by np.savez")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} cannot be read as .npz: {error}") from error
    if missing := {"features", "lat", "lon"} - set(found):
        raise DataError(f"{where} lacks the arrays {', '.join(sorted(missing))}; it has {', '.join(found)}")
    numbers = {}
    for name, dtype in (("features", np.float32), ("lat", np.float64), ("lon", np.float64)):
        try:
            with np.errstate(over="ignore"):
                numbers[name] = found[name].astype(dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: {name} contains values that are not numbers ({error})") from error
    features, lat, lon = numbers.values()
    if features.ndim != 2 or features.shape[1] != feature_dim or not len(features):
        raise DataError(f"{where}: features have the shape {features.shape}, this model takes (N, {feature_dim})")
    keys = found.get("key", np.arange(len(features)))
    for name, column in (("lat", lat), ("lon", lon), ("key", keys)):
        if column.shape != features.shape[:1]:
            raise DataError(f"{where}: {len(features)} rows of features, but {name} has the shape {column.shape}")
    good = np.isfinite(features).all(axis=1) & (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
    if not good.all():
        raise DataError(f"{where}: row {int(np.flatnonzero(~good)[0])} has a value that is not finite or out of range")
    gps_deg = torch.from_numpy(np.stack((lat, lon), axis=1))
    return torch.from_numpy(features), gps_deg, keys.astype(str).tolist()


def metadata_file(root: Path, metadata: str = "") -> Path:
    """The CSV `metadata`, below `root` or absolute, or the only one in `root`. Raises DataError: none, or several."""
    if metadata:
        return root / metadata
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise DataError(
            f"{root} must contain one CSV with the photographs' coordinates (found: {names}); set benchmark.metadata"
        )
    return tables[0]


def photos_below(folder: Path) -> tuple[list[Path], list[Skip]]:
    """Photographs at any depth of a folder, links included, and files of unknown kind; hidden files are ignored."""
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
