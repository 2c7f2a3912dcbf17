"""The seam: configuration dataclass -> object. `match`, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.nn.parallel import DistributedDataParallel

from geoclip.config import (
    AverageKind,
    BlueMarbleConfig,
    DataConfig,
    EncoderConfig,
    EncoderKind,
    GalleryConfig,
    GalleryKind,
    LocationConfig,
    OptimConfig,
    OptimizerKind,
    Precision,
    QueueConfig,
    QueueStart,
    ScheduleKind,
    TrainConfig,
    Tune,
)
from geoclip.data.assets import asset_path
from geoclip.data.augment import Augmentation
from geoclip.data.building.blue_marble_shards import BlueMarbleSettings, build_blue_marble
from geoclip.data.decoding import Decoder, PictureDecoder
from geoclip.data.feature_shards import FeatureDecoder, read_record
from geoclip.data.reading import places_in
from geoclip.data.shard_list import Shard
from geoclip.data.stream import StreamPlan
from geoclip.data.subset import Stretch, take_fraction
from geoclip.distributed import World
from geoclip.drawing.maps import draw_distribution
from geoclip.errors import GeoclipError
from geoclip.evaluation.gallery import Gallery, read_gallery
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.gps_queue import GPSQueue, draw_queue_start
from geoclip.model.image_encoder import ClipBackbone, ImageEncoder, ResNetBackbone
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.tuning import add_lora, checkpoint_activations, tune_last_blocks
from geoclip.run_dir import checkpoint_file, plain
from geoclip.training.average import WeightAverage
from geoclip.training.checkpoint import read_checkpoint
from geoclip.training.schedule import constant_from, step_lr, warmup_cosine_lr
from geoclip.training.state import BACKBONE, SUMS, TrainState, load_backbone, load_weights
from geoclip.training.step import Recipe


def build_blue_marble_data(root: str, settings: BlueMarbleConfig, *, overwrite: bool = False) -> bool:
    """The embedded default's shards at `root`; False where they stand already."""
    return build_blue_marble(
        Path(root), BlueMarbleSettings(**plain(settings)), draw=draw_distribution, overwrite=overwrite
    )


def build_backbone(encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone; pretrained weights are fetched or read here."""
    match encoder.kind:
        case EncoderKind.clip:
            return ClipBackbone.from_pretrained(encoder.repo)
        case EncoderKind.resnet:
            resnet = ResNetBackbone(stem_dim=encoder.stem_dim, widths=encoder.widths, depths=encoder.depths)
            if encoder.repo:
                load_backbone(resnet, checkpoint_file(encoder.repo))
            return resnet


def tune_backbone(backbone: torch.nn.Module, encoder: EncoderConfig) -> torch.nn.Module:
    """The backbone, set up so that what is to be trained of it is trained; a frozen one as it is.

    Raises:
        GeoclipError: this backbone cannot be tuned that way.
    """
    try:
        match encoder.tune:
            case Tune.frozen | Tune.full:
                pass
            case Tune.last_blocks:
                tune_last_blocks(backbone, encoder.last_blocks)
            case Tune.lora:
                add_lora(backbone, rank=encoder.lora_rank, alpha=encoder.lora_alpha)
        if encoder.checkpoint_activations:
            checkpoint_activations(backbone)
    except ValueError as error:
        raise GeoclipError(
            f"encoder={encoder.name} with encoder.tune={encoder.tune.value}: {error}"
        ) from error
    return backbone


def build_image_encoder(encoder: EncoderConfig, embedding_dim: int) -> ImageEncoder:
    """The image encoder; without a backbone where it is trained on that backbone's features."""
    return ImageEncoder(
        None if encoder.features else tune_backbone(build_backbone(encoder), encoder),
        feature_dim=encoder.feature_dim,
        hidden_dim=encoder.hidden_dim,
        embedding_dim=embedding_dim,
        mean=encoder.mean,
        std=encoder.std,
        frozen=encoder.frozen,
    )


def build_location_encoder(location: LocationConfig) -> LocationEncoder:
    """The location encoder, its random frequencies drawn from torch's global generator."""
    return LocationEncoder(
        location.sigmas,
        frequencies=location.frequencies,
        hidden_dim=location.hidden_dim,
        depth=location.depth,
        embedding_dim=location.embedding_dim,
    )


def build_model(config: TrainConfig) -> GeoCLIP:
    """The model with its first weights: a function of the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return GeoCLIP(
            build_image_encoder(config.encoder, config.location.embedding_dim),
            build_location_encoder(config.location),
            temperature=config.optim.temperature,
        )


def build_optimizer(optim: OptimConfig, model: GeoCLIP) -> torch.optim.Optimizer:
    """Over what is trained, a backbone with a learning rate of its own; fused, which is faster on CPU and GPU alike."""
    backbone: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith(BACKBONE) else rest).append(parameter)
    scale = 1.0 if optim.encoder_lr is None else optim.encoder_lr / optim.lr
    groups: list[dict[str, Any]] = [{"params": rest, "lr_scale": 1.0}]
    if backbone:
        groups.append({"params": backbone, "lr_scale": scale})
    match optim.kind:
        case OptimizerKind.adam:
            return torch.optim.Adam(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
        case OptimizerKind.adamw:
            return torch.optim.AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)


def build_average(optim: OptimConfig, model: GeoCLIP, samples_per_epoch: int) -> WeightAverage | None:
    """The average of the weights, if there is to be one."""
    match optim.average:
        case None:
            return None
        case AverageKind.ema:
            return WeightAverage.of(model, decay=optim.ema_decay)
        case AverageKind.swa:
            return WeightAverage.of(
                model,
                decay=None,
                first_step=math.ceil(optim.swa_start * last_step(optim, samples_per_epoch)),
                every_steps=optim.swa_every_steps or max(1, samples_per_epoch // optim.batch_size),
            )


def last_step(optim: OptimConfig, samples_per_epoch: int) -> int:
    """How many steps a run has: whole batches of all epochs together."""
    steps = samples_per_epoch * optim.epochs // optim.batch_size
    return steps if optim.max_steps is None else min(steps, optim.max_steps)


def build_stream_plan(config: TrainConfig, shards: list[Shard]) -> StreamPlan:
    """Which sample stands where in the training stream."""
    data = config.data
    return StreamPlan(
        subset=take_fraction(shards, data.fraction, config.seed),
        streams=data.streams,
        batch_size=config.optim.batch_size,
        shuffle_buffer=data.shuffle_buffer,
        seed=config.seed,
        decoder=build_decoder(config),
    )


def build_decoder(config: TrainConfig) -> Decoder:
    """What training makes of a sample's bytes."""
    encoder = config.encoder
    if encoder.features:
        views = read_record(Path(encoder.features))["views"]
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=views, training=True)
    return PictureDecoder(
        image_px=encoder.image_px, augmentation=build_augmentation(config.data), seed=config.seed
    )


def build_evaluation_decoder(encoder: EncoderConfig) -> Decoder:
    """What evaluation makes of a sample's bytes."""
    if encoder.features:
        views = read_record(Path(encoder.features))["views"]
        return FeatureDecoder(feature_dim=encoder.feature_dim, views=views)
    return PictureDecoder(image_px=encoder.image_px)


def encoder_identity(encoder: EncoderConfig) -> dict[str, Any]:
    """What makes two backbones the same, as far as a configuration tells."""
    known = plain(encoder)
    return {key: known[key] for key in ("kind", "repo", "feature_dim")}


def transform_identity(data: DataConfig, encoder: EncoderConfig) -> dict[str, Any]:
    """What makes two transforms from a picture's bytes to the backbone's input the same."""
    normalised = {"image_px": encoder.image_px, "mean": list(encoder.mean), "std": list(encoder.std)}
    return normalised | asdict(build_augmentation(data))


def build_augmentation(data: DataConfig) -> Augmentation:
    """The training transform."""
    return Augmentation(
        crop_scale_min=data.crop_scale_min,
        crop_ratio=data.crop_ratio,
        flip=data.flip,
        color_jitter=data.color_jitter,
        grayscale=data.grayscale,
    )


def build_queue(queue: QueueConfig, subset: list[Stretch], seed: int) -> GPSQueue:
    """A queue that starts from real places, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    match queue.start:
        case QueueStart.sphere:
            return GPSQueue(uniform_on_sphere(queue.size, generator))
        case QueueStart.train:
            places = torch.from_numpy(places_in(subset, queue.size)).float()
            return GPSQueue(draw_queue_start(places, queue.size, generator))


def build_state(config: TrainConfig, subset: list[Stretch], world: World) -> TrainState:
    """The state of a run at step 0, on this rank's device."""
    model = build_model(config).to(world.device)
    queue = build_queue(config.queue, subset, config.seed)
    queue.gps_deg_S2 = queue.gps_deg_S2.to(world.device)
    if config.compute.compile:  # in place, so that names in checkpoints stay
        model.image_encoder.compile()
        model.location_encoder.compile()
    return TrainState(
        model=model,
        parallel=DistributedDataParallel(model, broadcast_buffers=False) if world.size > 1 else model,
        queue=queue,
        optimizer=build_optimizer(config.optim, model),
        noise=torch.Generator().manual_seed(config.seed),
        average=build_average(config.optim, model, sum(len(stretch) for stretch in subset)),
        sums=torch.zeros(SUMS, device=world.device),
    )


def build_recipe(config: TrainConfig, samples_per_epoch: int, device: torch.device) -> Recipe:
    """The numbers of a step, and how many steps there are."""
    optim, steps = config.optim, last_step(config.optim, samples_per_epoch)
    lr_at: Callable[[int], float]
    match optim.schedule:
        case ScheduleKind.step:
            lr_at = partial(
                step_lr,
                optim.lr,
                batch_size=optim.batch_size,
                samples_per_epoch=samples_per_epoch,
                gamma=optim.step_gamma,
            )
        case ScheduleKind.cosine:
            lr_at = partial(warmup_cosine_lr, optim.lr, warmup_steps=optim.warmup_steps, total_steps=steps)
    if optim.average is AverageKind.swa and optim.swa_lr is not None:
        lr_at = partial(constant_from, lr_at, math.ceil(optim.swa_start * steps), optim.swa_lr)
    return Recipe(
        last_step=steps,
        lr_at=lr_at,
        batch_noise_m=config.queue.batch_noise_m,
        queue_noise_m=config.queue.queue_noise_m,
        grad_clip=optim.grad_clip,
        logit_scale_max=optim.logit_scale_max,
        autocast=build_autocast(config.compute.precision, device),
        max_bad_fraction=config.data.max_bad_fraction,
        max_bad_steps=optim.max_bad_steps,
        parts=config.compute.accumulation,
    )


def build_autocast(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type of matrix products; None is float32. Projection and Fourier features are float32 always."""
    match precision:
        case Precision.float32:
            return None
        case Precision.bfloat16:
            return torch.bfloat16
        case Precision.auto:
            return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None


def build_gallery(gallery: GalleryConfig) -> Gallery:
    """The coordinates to retrieve from."""
    match gallery.kind:
        case GalleryKind.own:
            raise ValueError("a gallery of its own belongs to a trained run; see geoclip.trained")
        case GalleryKind.released:
            return read_gallery(asset_path("gallery_100k.csv"), gallery.name)
        case GalleryKind.file:
            return read_gallery(Path(gallery.path), gallery.name)


def config_of(saved: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was trained with."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), saved["config"]))
    assert isinstance(config, TrainConfig)
    return config


def model_from_checkpoint(path: Path, *, needs_backbone: bool = True) -> tuple[GeoCLIP, TrainConfig]:
    """A trained model in evaluation mode, and its configuration.

    Args:
        path: a checkpoint.
        needs_backbone: whether it will be asked about pictures; features need none, where it is frozen.

    Raises:
        CheckpointError: damaged, or of another architecture.
    """
    saved = read_checkpoint(path)
    config = config_of(saved)
    if needs_backbone:
        config = replace(config, encoder=replace(config.encoder, features=""))
    model = build_model(config)
    load_weights(model, saved, path)
    return model.eval(), config
