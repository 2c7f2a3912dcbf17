"""Store a frozen encoder's features: `python -m geoclip.features data=… encoder=…`; `--help` explains every key."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.cli.app import require_rendezvous, run_entry_point, world_size_from_environment
from geoclip.config import FeaturesConfig, features_problems, typed
from geoclip.system.console import setup_logging

if TYPE_CHECKING:
    from geoclip.data.shards import Shard

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then extract."""
    extract(typed(cfg, FeaturesConfig, features_problems))


def extract(config: FeaturesConfig) -> Path:
    """Write feature shards of every picture of the splits, in all views; returns the folder, for `encoder.features=`.

    Rerunning resumes: existing shards are kept.

    Raises:
        GeoclipError: shards or encoder cannot be read.
    """
    from geoclip.data.batch import Account
    from geoclip.data.features import ViewsDecoder, write_record
    from geoclip.distributed import gather_objects, initialise, wait_for_all
    from geoclip.factory.data import build_augmentation, build_preprocessing, open_splits
    from geoclip.factory.model import build_image_encoder
    from geoclip.factory.training import build_precision
    from geoclip.inference.extraction import close_split, extract_features
    from geoclip.runs.run_dir import fingerprint_of

    size = world_size_from_environment()
    require_rendezvous(size)
    world = initialise(config.compute.device, size=size, timeout_minutes=config.compute.timeout_minutes)
    setup_logging(logging.INFO if world.is_main else logging.WARNING)
    augmentation = build_augmentation(config.data)
    views = config.views if config.views is not None else (0 if augmentation.is_identity else 4)
    splits = open_splits(config.data, config.splits, world)
    encoder = build_image_encoder(config.encoder, embedding_dim=1).to(world.device).eval()
    record = _record(config, views, splits, encoder)
    folder = Path(config.root) / f"{config.data.name}-{config.encoder.name}-{fingerprint_of(record)}"
    if world.is_main:
        write_record(folder, record)
    decoder = ViewsDecoder(
        preprocessing=build_preprocessing(config.encoder, max_pixels=config.data.max_pixels),
        augmentation=augmentation,
        seed=config.seed,
        views=views,
    )
    for split, shards in splits.items():
        if (folder / split / "index.json").is_file():
            log.info("%s exists already", folder / split)
            continue
        skipped = extract_features(
            encoder, shards, folder / split, decoder,
            world=world, workers=config.compute.workers, batch_size=config.batch_size,
            precision=build_precision(config.compute.precision, world.device),
            timeout_s=60 * config.compute.timeout_minutes,
        )  # fmt: skip
        reports = gather_objects(skipped)
        wait_for_all()
        if world.is_main:
            for report in reports[1:]:
                reports[0].merge(report)
            written = close_split(folder / split, shards)
            Account(what=str(folder / split), used=written, skipped=reports[0], unit="pictures").log()
            log.info("%s: %s samples, views of each: %d", folder / split, f"{written:,}", 1 + views)
        wait_for_all()
    log.info(
        "train on them: python -m geoclip.train data=%s encoder=%s encoder.repo=%s encoder.features=%s",
        config.data.name, config.encoder.name, config.encoder.repo, folder,
    )  # fmt: skip
    return folder


def _record(config: FeaturesConfig, views: int, splits: dict[str, list[Shard]], encoder: Any) -> dict[str, Any]:
    """The identity of the features: encoder, transform and data set."""
    from geoclip.data.shards import fingerprint
    from geoclip.factory.data import transform_identity
    from geoclip.factory.model import encoder_identity
    from geoclip.model.backbones import weights_sha256

    return {
        "format": 1,
        "encoder": encoder_identity(config.encoder) | {"weights_sha256": weights_sha256(encoder.backbone)},
        "transform": transform_identity(config.data, config.encoder),
        "views": views,
        "seed": config.seed,
        "data": {"name": config.data.name} | {split: fingerprint(shards) for split, shards in splits.items()},
    }


if __name__ == "__main__":
    run_entry_point("features", FeaturesConfig, main)
