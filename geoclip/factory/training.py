"""From configuration to training: state, optimizer, objective, batches, step, hooks, resuming."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geoclip.config import (
    AverageKind,
    ComputeConfig,
    LossConfig,
    Near,
    OptimConfig,
    OptimizerKind,
    Precision,
    QueueConfig,
    QueueStart,
    ScheduleKind,
    TrainConfig,
)
from geoclip.data.batch import Batch
from geoclip.data.features import FeatureDecoder
from geoclip.data.on_device import load_features, resident_batches, size_on_device
from geoclip.data.shard_index import SampleRange, coordinates_in
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.distributed import World, gather_objects
from geoclip.errors import CheckpointError, GeoclipError
from geoclip.factory.data import build_evaluation_decoder
from geoclip.factory.model import build_model
from geoclip.geo.geodesy import haversine_km, uniform_on_sphere
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.queue import GPSQueue, draw_queue_start, normal_on_circle
from geoclip.pretrained.resolver import resolve_run
from geoclip.runs.run_dir import config_for_hash, differences, provenance, to_dict
from geoclip.training.checkpoint import Tree, newest_good, read_checkpoint, step_files
from geoclip.training.loop import Hooks, Step
from geoclip.training.losses import Objective
from geoclip.training.state import BACKBONE, SUMS, TrainState, WeightAverage, restore_state
from geoclip.training.step import (
    GraphedStep,
    Recipe,
    constant_from,
    matrix_products,
    step_lr,
    train_step,
    warmup_cosine_lr,
)

if TYPE_CHECKING:
    from geoclip.training.hooks import RunContext


log = logging.getLogger("geoclip")

FEW = 4096  # samples that are examined first: they contain negatives in nearly every data set


def compile_layers(model: GeoCLIP, device: torch.device) -> bool:
    """Compile a model's layers in place, which keeps the names in checkpoints.

    The encoding of coordinates stays eager: at sigma 2^8 phases are thousands of radians, and with the compiler's order
    of operations gradients change by 0.5 % of their norm. Returns False, with a warning, if the compiler fails.
    """
    if problem := compiler_problem(device):
        log.warning("compute.compile=true: nothing is compiled, training runs in eager mode (%s)", problem)
        return False
    backbone = model.image_encoder.backbone
    blocks = [] if backbone is None else _repeated_blocks(backbone)
    for module in [*blocks, model.image_encoder.head] if blocks else [model.image_encoder]:
        module.compile(dynamic=False)
    for module in model.location_encoder.modules():
        if isinstance(module, nn.Sequential):
            module.compile(dynamic=False)
    return True


def _repeated_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: blocks of equal shapes share one compilation, so it takes seconds, not minutes.

    Source: https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
    """
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            shapes = {tuple(tuple(one.shape) for one in block.parameters()) for block in module}
            if len(shapes) == 1 and len({type(block) for block in module}) == 1:
                return list(module)
    return []


def compiler_problem(device: torch.device) -> str | None:
    """Why torch.compile fails for this device; None if it works."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # no compiler, or a failure of compiler or driver
        return shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")
    return None


def _probe(x: Tensor) -> Tensor:
    return x.relu() + 1


def build_optimizer(optim: OptimConfig, model: GeoCLIP) -> torch.optim.Optimizer:
    """The fused optimizer of all trained parameters; the backbone's have their own learning rate."""
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
    """The average of the weights, or None."""
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
    """Number of steps of a run: full batches in all epochs together."""
    steps = samples_per_epoch * optim.epochs // optim.batch_size
    if optim.max_samples is not None:
        steps = min(steps, optim.max_samples // optim.batch_size)
    return steps if optim.max_steps is None else min(steps, optim.max_steps)


def build_queue(queue: QueueConfig, subset: list[SampleRange], seed: int) -> GPSQueue:
    """The queue at step 0, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    match queue.start:
        case QueueStart.sphere:
            return GPSQueue(uniform_on_sphere(queue.size, generator))
        case QueueStart.released:
            return GPSQueue(normal_on_circle(queue.size, generator))
        case QueueStart.train:
            gps_deg_N2 = torch.from_numpy(coordinates_in(subset, queue.size)).float()
            return GPSQueue(draw_queue_start(gps_deg_N2, queue.size, generator))


def build_state(config: TrainConfig, subset: list[SampleRange], world: World) -> TrainState:
    """The state of a run at step 0, on this rank's device."""
    model = build_model(config).to(world.device)
    queue = build_queue(config.queue, subset, config.seed).to(world.device)
    if config.compute.compile:
        compile_layers(model, world.device)
    return TrainState(
        model=model,
        parallel=DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if world.size > 1
        else model,
        queue=queue,
        optimizer=build_optimizer(config.optim, model),
        noise=torch.Generator().manual_seed(config.seed),
        average=build_average(config.optim, model, sum(len(span) for span in subset)),
        sums=torch.zeros(SUMS, device=world.device),
    )


def require_negatives(config: TrainConfig, subset: list[SampleRange]) -> None:
    """Refuse training samples that have no negatives: the loss would be 0 at every step.

    Raises:
        GeoclipError: all are at one location, or, with loss.near=mask, all within loss.near_radius_km of each other.
    """
    loss = config.loss
    radius_km = loss.near_radius_km if loss.near is Near.mask else 0.0
    if loss.hard_negatives or not (loss.mask_same_place or radius_km):
        return
    samples = sum(len(span) for span in subset)
    for count in sorted({min(FEW, samples), samples}):
        gps_deg_N2 = torch.from_numpy(coordinates_in(subset, count).astype(np.float32)).double()
        farthest = gps_deg_N2[haversine_km(gps_deg_N2, gps_deg_N2[:1]).argmax()]
        if haversine_km(gps_deg_N2, farthest[None]).max() > radius_km:
            return
    where = f"within loss.near_radius_km={radius_km:g} km of each other" if radius_km else "at one location"
    raise GeoclipError(
        f"data.fraction={config.data.fraction:g}: all {samples} training samples are {where}: no picture has a "
        "negative, and the loss is 0 at every step; train on more locations"
        + (", or lower loss.near_radius_km" if radius_km else "")
    )


def build_objective(loss: LossConfig, queue: QueueConfig) -> Objective:
    """The objective of a step."""
    return Objective(
        kind=loss.kind.value,
        views=loss.views,
        batch_noise_m=queue.batch_noise_m,
        queue_noise_m=queue.queue_noise_m,
        mask_same_place=loss.mask_same_place,
        near=None if loss.near is None else loss.near.value,
        near_radius_km=loss.near_radius_km,
        hard_negatives=loss.hard_negatives,
        hard_radius_km=loss.hard_radius_km,
    )


def build_recipe(config: TrainConfig, samples_per_epoch: int, device: torch.device) -> Recipe:
    """The settings of a step, and the number of steps.

    Raises:
        GeoclipError: there is no full batch, so the number of steps is 0.
    """
    optim, steps = config.optim, last_step(config.optim, samples_per_epoch)
    if config.compute.precision is Precision.tf32 and device.type != "cuda":
        log.warning("compute.precision=tf32: %s has no TF32; matrix products are float32", device.type)
    if not steps:
        raise GeoclipError(
            f"optim.batch_size={optim.batch_size} is more than the {samples_per_epoch} samples of data.fraction="
            f"{config.data.fraction} in optim.epochs={optim.epochs}, so that there is no full batch; lower it"
        )
    lr_at: Callable[[int], float]
    match optim.schedule:
        case ScheduleKind.step:
            epochs: Any = {"batch_size": optim.batch_size, "samples_per_epoch": samples_per_epoch}
            lr_at = partial(step_lr, optim.lr, gamma=optim.step_gamma, **epochs)
        case ScheduleKind.cosine:
            lr_at = partial(warmup_cosine_lr, optim.lr, warmup_steps=optim.warmup_steps, total_steps=steps)
    if optim.average is AverageKind.swa and optim.swa_lr is not None:
        lr_at = partial(constant_from, lr_at, math.ceil(optim.swa_start * steps), optim.swa_lr)
    return Recipe(
        last_step=steps,
        lr_at=lr_at,
        objective=build_objective(config.loss, config.queue),
        grad_clip=optim.grad_clip,
        logit_scale_max=config.loss.logit_scale_max,
        autocast=build_autocast(config.compute.precision, device),
        tf32=config.compute.precision is Precision.tf32,
        max_bad_fraction=config.data.max_bad_fraction,
        max_bad_steps=optim.max_bad_steps,
        parts=config.compute.accumulation,
        queue_embeddings=config.queue.embeddings.value,
    )


def build_step(config: TrainConfig, state: TrainState, world: World) -> Step:
    """`train_step`, or a CUDA graph of it on one GPU that trains on features, where the kernels are short.

    No graph with `compute.deterministic`: a resumed run starts with eager steps where the original run replays it.
    """
    compute, on_features = config.compute, state.model.image_encoder.backbone is None
    recorded = compute.cuda_graph and world.size == 1 and world.device.type == "cuda" and not compute.deterministic
    return GraphedStep() if recorded and on_features else train_step


def build_batches(
    config: TrainConfig, plan: StreamPlan, world: World, first_step: int, last_step: int
) -> Generator[Batch, None, None]:
    """This rank's training batches; from features in device memory, see `compute.features_on_device`."""
    how: Any = {
        "rank": world.rank,
        "world_size": world.size,
        "workers": config.compute.workers,
        "first_step": first_step,
        "last_step": last_step,
        "timeout_s": 60 * config.compute.timeout_minutes,
    }
    if isinstance(plan.decoder, FeatureDecoder) and _keep_on_device(config.compute, plan, world.device):
        features = load_features(plan.subset, plan.decoder, world.device, progress=world.is_main)
        return resident_batches(plan, features, **how)
    return train_batches(plan, **how)


def _keep_on_device(compute: ComputeConfig, plan: StreamPlan, device: torch.device) -> bool:
    """Whether features are loaded into device memory: as configured; null: if they fit half of a GPU's free memory.

    Raises:
        GeoclipError: compute.features_on_device=true, and they do not fit.
    """
    assert isinstance(plan.decoder, FeatureDecoder)
    if device.type != "cuda":
        return compute.features_on_device is True
    size, free = size_on_device(plan.subset, plan.decoder), torch.cuda.mem_get_info(device)[0]
    if compute.features_on_device and size > 0.9 * free:
        raise GeoclipError(
            f"compute.features_on_device=true: {size / 1e9:.1f} GB of features do not fit into {free / 1e9:.1f} GB of "
            f"free memory on {device}; set it to false, or lower data.fraction"
        )
    return compute.features_on_device is True or (compute.features_on_device is None and size < free / 2)


def build_hooks(config: TrainConfig, context: RunContext) -> Hooks:
    """Records, validation and checkpoints; rank 0 reads the validation split.

    Raises:
        DataError: no picture of that split can be read.
    """
    from geoclip.training.hooks import Validation, run_hooks

    world, validation = context.world, None
    facts: dict[str, Any] = {"config": to_dict(config), "files": context.files, "cwd": str(Path.cwd())}
    if world.is_main:
        facts |= {"wandb_run_id": context.folder.name, "versions": provenance(world.size)["versions"]}
        decoder = build_evaluation_decoder(config.encoder, config.data)
        limit, protocol = config.validate_samples, config.protocol.value
        validation = Validation(context.val_shards, context.gallery, decoder, limit, world.device, protocol)
        validation.account.log()
    return run_hooks(
        context,
        validation,
        facts,
        record_every=config.compute.log_every_steps,
        validate_every=config.validate_every_steps,
        checkpoint_every=config.compute.checkpoint_every_steps,
    )


def build_precision(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """The context for matrix products of this precision."""
    autocast = build_autocast(precision, device)
    return partial(matrix_products, device, autocast, precision is Precision.tf32)


def build_autocast(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type of matrix products; None: float32. Projection and Fourier features are always float32."""
    match precision:
        case Precision.float32 | Precision.tf32:
            return None
        case Precision.bfloat16:
            return torch.bfloat16
        case Precision.auto:
            return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None


def resume(config: TrainConfig, context: RunContext, state: TrainState) -> None:
    """Restore `state` from the run's newest readable checkpoint, or from the one that `resume` names.

    All ranks call this; rank 0 chooses the checkpoint.

    Raises:
        CheckpointError: it is of another configuration or architecture; or resume=never and the run has checkpoints.
    """
    world, files = context.world, context.files
    folder, found = context.folder / "checkpoints", None
    if config.resume == "never":
        if step_files(folder):
            raise CheckpointError(
                f"resume=never: {context.folder} has checkpoints; set another name=…, or move that folder away"
            )
        return
    if world.is_main:
        found = newest_good(folder)
        if found is None:
            found = named_checkpoint(config, files)
    path = gather_objects(None if found is None else found[0])[0]
    if path is None:
        return
    saved = read_checkpoint(path) if found is None else found[1]
    _refuse_another_config(saved, path, config, files)
    restore_state(state, saved, path, rank=world.rank, world_size=world.size)
    if path.parent != folder:
        log.info("starts from %s", path)


def named_checkpoint(config: TrainConfig, files: dict[str, Any]) -> tuple[Path, Tree] | None:
    """The path and contents of the checkpoint that `resume` names, or None.

    Raises:
        CheckpointError: it is missing, corrupt or of another configuration.
    """
    if config.resume in ("auto", "never"):
        return None
    path = resolve_run(config.resume, config.runs_dir, best=False).files[0]
    saved = read_checkpoint(path)
    _refuse_another_config(saved, path, config, files)
    return path, saved


def _refuse_another_config(saved: Tree, path: Path, config: TrainConfig, files: dict[str, Any]) -> None:
    changed = differences(
        config_for_hash(saved["config"], saved.get("files", {})), config_for_hash(to_dict(config), files)
    )
    if not changed:
        return
    listed = "\n".join(f"  {line}" for line in changed)
    if not config.force_resume:
        raise CheckpointError(
            f"{path} is of another configuration (there -> here):\n{listed}\nTo resume nevertheless: force_resume=true"
        )
    log.warning("resumes with another configuration (there -> here):\n%s", listed)
