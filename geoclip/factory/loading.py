"""From `checkpoint=` to a model, and from a benchmark's name to its embedded images."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoclip.config import (
    BenchmarkKind,
    CalibrateConfig,
    EncoderConfig,
    EncoderKind,
    EvaluateConfig,
    GalleryConfig,
    GalleryKind,
    ModelSourceConfig,
    TrainConfig,
    Tune,
)
from geoclip.data.assets import asset_path, cache_dir
from geoclip.data.batch import Account, PictureDecoder, Skip, account_of
from geoclip.data.benchmarks import photo_batches, read_features, read_photos
from geoclip.data.coordinates import NO_FIX
from geoclip.data.features import read_feature_split
from geoclip.data.shards import all_samples, count_samples, find_shards, samples_account
from geoclip.data.stream import evaluation_batches
from geoclip.data.transforms import Preprocessing
from geoclip.distributed import World, initialise
from geoclip.errors import CheckpointError, DataError
from geoclip.evaluation.gallery import Gallery, embedded_gallery
from geoclip.evaluation.retrieval import Queries, embed_features, embed_images
from geoclip.factory.data import build_gallery, build_preprocessing
from geoclip.factory.model import assemble_model, config_of, encoder_identity, model_from_checkpoint
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.pretrained.releases import (
    FORMAT_VERSION,
    OWN,
    Release,
    location_encoder_of,
    model_of,
    read_release,
    read_release_config,
)
from geoclip.pretrained.resolver import Checkpoint, CheckpointKind, resolve_checkpoint

log = logging.getLogger("geoclip")

CLIP_PX = 224


def load(source: str | Path = "official", *, backbone: str | None = OWN, **download: Any) -> GeoCLIP:
    """Any released or trained model in evaluation mode.

    Args:
        source: "official": the weights in the pinned wheel on the package index; a Hub id or local folder in the
            authors' layout (config.json, model.safetensors) or in ours; a .ckpt of the Lightning re-implementation; a
            run folder or checkpoint.
        backbone: its CLIP as Hub id or local folder; "own": the Hub id that the source names; None: no frozen
            backbone, for CLIP features through `encode_features`. A trained backbone is part of the weights.
        download: revision, token, cache_dir, local_files_only, for a Hub id.

    Raises:
        AssetError: the source or its backbone is neither local nor reachable.
        CheckpointError: it is corrupt, or of another architecture.
    """
    return read_model(resolve_checkpoint(source, hub_ids=True, **download), backbone, **download)[0]


def load_location_encoder(source: str | Path = "official", **download: Any) -> nn.Module:
    """The location encoder of any released or trained model; arguments and errors as of `load`."""
    return read_location_encoder(resolve_checkpoint(source, hub_ids=True, **download))


def read_model(
    checkpoint: Checkpoint, backbone: str | None = OWN, **download: Any
) -> tuple[GeoCLIP, EncoderConfig, GalleryConfig]:
    """A model in evaluation mode, the configuration of its image encoder, and its own gallery.

    `backbone` and `download` are as in `load`.

    Raises:
        AssetError: the backbone is neither local nor reachable.
        CheckpointError: corrupt, of another architecture, or only a location encoder.
    """
    match checkpoint.kind:
        case CheckpointKind.run:
            model, config = model_from_checkpoint(checkpoint.files[0], backbone=backbone)
        case CheckpointKind.published:
            model, config = _read_published(checkpoint.folder, backbone)
        case CheckpointKind.official | CheckpointKind.authors | CheckpointKind.lightning:
            release = read_release(checkpoint.files)
            model = model_of(release, backbone, **download)
            return model, _encoder_of(release, model), _gallery_of(release)
    return model, config.encoder, config.gallery


def read_location_encoder(checkpoint: Checkpoint) -> nn.Module:
    """The location encoder, (N, 2) degrees -> (N, D) not normalised, in evaluation mode on the CPU.

    Raises:
        CheckpointError: corrupt, or of another architecture.
    """
    if checkpoint.kind in (CheckpointKind.run, CheckpointKind.published):
        return read_model(checkpoint, None)[0].location_encoder
    return location_encoder_of(read_release(checkpoint.files))


def _encoder_of(release: Release, model: GeoCLIP) -> EncoderConfig:
    clip = model.image_encoder.backbone
    return EncoderConfig(
        name="clip",
        kind=EncoderKind.clip,
        repo=release.backbone,
        image_px=clip.image_px if isinstance(clip, ClipBackbone) else CLIP_PX,
        tune=Tune.frozen,
        feature_dim=model.image_encoder.feature_dim,
    )


def _gallery_of(release: Release) -> GalleryConfig:
    """The gallery of a release; the authors' gallery if it has none."""
    if release.gallery_csv is None or release.gallery_csv == asset_path("gallery_100k.csv"):
        return GalleryConfig(name="released_100k", kind=GalleryKind.released)
    return GalleryConfig(name=release.gallery_csv.stem, path=str(release.gallery_csv))


def _read_published(folder: Path, backbone: str | None) -> tuple[GeoCLIP, TrainConfig]:
    """The model of a published folder, and its configuration with the folder's gallery.

    Raises:
        CheckpointError: corrupt, or of another format version.
    """
    config_json, weights = folder / "config.json", folder / "model.safetensors"
    try:
        described = read_release_config(folder)
        tensors = safetensors.torch.load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({' '.join(str(error).split())[:200]}); fetch it again, or take the version of "
            "geoclip that its README.md names"
        ) from error
    version, gallery = described.get("format_version"), described.get("gallery_file")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_json}: format_version={version!r} is not {FORMAT_VERSION}; take the version of geoclip that its "
            "README.md names"
        )
    config = config_of(described, config_json)
    if gallery is None and config.gallery.kind is GalleryKind.file:
        raise CheckpointError(f"{config_json}: gallery_file must name the CSV of the gallery {config.gallery.name!r}")
    if gallery is not None:
        if Path(str(gallery)).name != gallery or not (folder / gallery).is_file():
            raise CheckpointError(f"{config_json}: gallery_file={gallery!r} must name a CSV beside it")
        config = replace(config, gallery=GalleryConfig(name=config.gallery.name, path=str(folder / gallery)))
    return assemble_model(config, tensors, weights, backbone), config


@dataclass(kw_only=True, slots=True)
class LoadedModel:
    """A trained model on its device, and the facts that results record."""

    model: GeoCLIP
    world: World
    name: str
    folder: Path  # results are written to it
    sha256: str  # of the checkpoint's files
    preprocessing: Preprocessing
    gallery: Gallery
    is_own_gallery: bool  # the gallery of its validation
    encoder: dict[str, Any]  # identity of the encoder whose features it takes
    keep_gallery: bool

    @property
    def scale(self) -> float:
        """The factor of similarities before the softmax."""
        return self.model.logit_scale.exp().item()

    def embedded(self, gallery: Gallery) -> Tensor:
        """(G, D) unit vectors of a gallery, on the model's device; cached on disk if `keep_gallery`."""
        cache = cache_dir() / "galleries" if self.keep_gallery else None
        return embedded_gallery(self.model.location_encoder, gallery, self.world.device, cache)


def load_model(source: ModelSourceConfig, *, needs_backbone: bool = True, predicting: bool = False) -> LoadedModel:
    """Load the model and the gallery that a configuration names.

    Args:
        source: checkpoint, gallery, device, test-time augmentation.
        needs_backbone: whether images are embedded; precomputed features need no CLIP.
        predicting: normalise pixels with encoder.prediction_mean and prediction_std, if set.

    Raises:
        GeoclipError: a checkpoint, an asset or a gallery cannot be read.
    """
    world = initialise(source.device)
    checkpoint = resolve_checkpoint(source.checkpoint, source.runs_dir)
    model, encoder, own_gallery = read_model(checkpoint, (source.backbone or OWN) if needs_backbone else None)
    if source.backbone:
        encoder = replace(encoder, repo=source.backbone)
    if predicting and encoder.prediction_mean and encoder.prediction_std:
        model.image_encoder.normalise_by(encoder.prediction_mean, encoder.prediction_std)
    if checkpoint.kind in (CheckpointKind.run, CheckpointKind.published):
        log.info("checkpoint %s", checkpoint.files[0])
    gallery = own_gallery if source.gallery.kind is GalleryKind.own else source.gallery
    return LoadedModel(
        model=model.to(world.device).eval(),
        world=world,
        name=checkpoint.name,
        folder=checkpoint.results,
        sha256=checkpoint.sha256(),
        preprocessing=build_preprocessing(encoder, source.tta, max_pixels=source.max_pixels),
        gallery=build_gallery(gallery),
        is_own_gallery=_with_real_path(gallery) == _with_real_path(own_gallery),
        encoder=encoder_identity(encoder),
        keep_gallery=source.keep_gallery,
    )


def _with_real_path(gallery: GalleryConfig) -> GalleryConfig:
    """With the real path, so that two spellings of a path are equal."""
    return replace(gallery, path=gallery.path and os.path.realpath(gallery.path))


def embed_benchmark(config: EvaluateConfig | CalibrateConfig, loaded: LoadedModel) -> tuple[Queries, Account]:
    """The benchmark's embedded images, and the account of used and skipped ones, which is logged.

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
    if not benchmark.root:  # the shards built from it exist, as the configuration's rules check
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
    """The rows without those at (0, 0), which is no valid location; see `require_coordinates`."""
    kept = (gps_deg_N2 != 0).any(dim=1)
    rows = kept.nonzero()[:, 0].tolist()
    bad = [Skip(shard=path.name, key=keys[row], reason=NO_FIX) for row in (~kept).nonzero()[:, 0].tolist()]
    account = account_of(str(path), len(rows), bad, "images")
    if not rows:
        raise DataError(f"image_features={path}: all rows are at latitude 0, longitude 0; write their coordinates")
    return (features_NF[kept], gps_deg_N2[kept], [keys[row] for row in rows]), account
