"""From the name of a benchmark to its images, embedded: shared by evaluation and calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from geoclip.config import BenchmarkKind, CalibrateConfig, EvaluateConfig
from geoclip.data.account import Account, account_of
from geoclip.data.batch import PictureDecoder, Skip
from geoclip.data.benchmarks import photo_batches, read_features, read_photos
from geoclip.data.feature_shards import read_feature_split
from geoclip.data.places_json import NO_FIX
from geoclip.data.shard_list import count_samples, find_shards, samples_account
from geoclip.data.stream import evaluation_batches
from geoclip.data.subset import all_samples
from geoclip.errors import DataError
from geoclip.evaluation.images import Queries, embed_features, embed_images
from geoclip.trained import LoadedModel


def embed_benchmark(config: EvaluateConfig | CalibrateConfig, loaded: LoadedModel) -> tuple[Queries, Account]:
    """The benchmark's images, embedded, and the account of all that were found, which is printed.

    Raises:
        GeoclipError: the benchmark or the features cannot be read.
    """
    benchmark, device = config.benchmark, loaded.world.device
    if config.image_features:
        path, dim = Path(config.image_features), loaded.model.image_encoder.feature_dim
        features = read_feature_split(path, dim, loaded.encoder) if path.is_dir() else read_features(path, dim)
        features, account = _with_coordinates(path, *features)
        account.log()
        return embed_features(loaded.model, *features, device), account
    found = Account(what=f"benchmark {benchmark.name}", used=0, unit="images")
    if not benchmark.root:  # as checked, the shards that were built of it are there
        benchmark = replace(benchmark, kind=BenchmarkKind.shards, root=benchmark.built, split="test")
    match benchmark.kind:
        case BenchmarkKind.shards:
            files = find_shards(benchmark.root, benchmark.split, "set benchmark.root and benchmark.split")
            files.account.log()
            shards = count_samples(files.paths)
            found.skipped.merge(samples_account(files.what, shards).skipped)
            ranges = all_samples(shards)
            decoder = PictureDecoder(preprocessing=loaded.preprocessing)
            batches = evaluation_batches(ranges, decoder, config.batch_size)
            total = sum(map(len, ranges))
        case BenchmarkKind.photos:
            photos, unusable = read_photos(Path(benchmark.root), benchmark.metadata)
            found.skipped.add(unusable)
            batches = photo_batches(photos, loaded.preprocessing, config.batch_size)
            total = len(photos)
    queries, skipped = embed_images(loaded.model, batches, device, total=total)
    found.used = len(queries.keys)
    found.skipped.merge(skipped)
    found.log()
    return queries, found


def _with_coordinates(
    path: Path, features_NF: Tensor, gps_deg_N2: Tensor, keys: list[str]
) -> tuple[tuple[Tensor, Tensor, list[str]], Account]:
    """The rows that are not at (0, 0), which is no photograph's location; see `require_place`."""
    kept = (gps_deg_N2 != 0).any(dim=1)
    rows = kept.nonzero()[:, 0].tolist()
    bad = [Skip(shard=path.name, key=keys[row], reason=NO_FIX) for row in (~kept).nonzero()[:, 0].tolist()]
    account = account_of(str(path), len(rows), bad, "images")
    if not rows:
        raise DataError(f"image_features={path}: every row is at latitude 0, longitude 0")
    return (features_NF[kept], gps_deg_N2[kept], [keys[row] for row in rows]), account
