"""Training from features that are on the device: samples per second, and the loss beside the CPU's."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bench.card import Card, GpuRow
from bench.gpu_rows.state import LARGE, SMALL, Sizes, recipe_of, state_of
from bench.released import untrained_released_geoclip
from bench.rows.training_step import linear_layers, released_loop
from geoclip.data.batch import Batch, SkipReport
from geoclip.factory.training import compile_layers
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.image_encoder import ImageEncoder
from geoclip.training.checkpoint import pack, read_checkpoint, write_checkpoint
from geoclip.training.loop import Step
from geoclip.training.state import TrainState, rank_tree, restore_state, state_tree
from geoclip.training.step import GraphedStep, train_step

BATCH, STEPS = 512, 200
SMALL_BATCH, FEW_STEPS = 16, 8
REFERENCE_LR = 1e-3  # so that 200 steps learn something that a wrong gradient would not


def head_alone() -> ImageEncoder:
    """The trained part of the image encoder."""
    torch.manual_seed(1)
    return ImageEncoder(None)


def batches_of(count: int, batch: int, device: torch.device) -> list[Batch]:
    """Features whose direction depends on the coordinates, so that there is something to learn."""
    generator = torch.Generator().manual_seed(4)
    basis = torch.randn(4, 768, generator=generator)
    made = []
    for _ in range(count):
        gps_deg_B2 = uniform_on_sphere(batch, generator)
        angles = gps_deg_B2.deg2rad()
        code = torch.cat((angles.sin(), angles.cos()), dim=1)
        features = code @ basis + 0.1 * torch.randn(batch, 768, generator=generator)
        made.append(Batch(images=features.half().to(device), gps_deg_B2=gps_deg_B2.to(device), keys=[""] * batch))
    return made


def losses(card: Card, device: torch.device, precision: str, step: Step, sizes: Sizes) -> list[float]:
    """Of a run from the same weights over the same batches."""
    steps, batch = (FEW_STEPS, SMALL_BATCH) if card.quick else (STEPS, BATCH)
    state = state_of(card, head_alone(), sizes, device)
    recipe = recipe_of(card, precision, REFERENCE_LR)
    found = [step(state, one, recipe).sums[0] for one in batches_of(steps, batch, device)]
    return torch.stack(found).tolist()


def start_reference(card: Card, path: Path) -> subprocess.Popen[bytes]:
    """The CPU's losses, computed by another process while the card does other rows."""
    threads = max(1, (os.cpu_count() or 2) // 2)
    command = [sys.executable, "-m", "bench.gpu", "--reference", str(path), *(["--quick"] if card.quick else [])]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, env=hidden)


def write_reference(card: Card, path: Path) -> None:
    """The CPU's losses in float32, eager."""
    sizes = SMALL if card.quick else LARGE
    path.write_text(json.dumps(losses(card, torch.device("cpu"), "float32", train_step, sizes)))


def operations(state: TrainState, batch: int) -> float:
    """Multiplications and additions of a step's matrix products; no gradient reaches the first layers' inputs."""
    candidates = batch + len(state.queue)
    total = 0.0
    for branch in state.model.location_encoder.branches:  # type: ignore[union-attr]
        layers = linear_layers(branch)
        total += (
            sum(6.0 * one.weight.numel() * candidates for one in layers) - 2.0 * layers[0].weight.numel() * candidates
        )
    head = [one for one in state.model.image_encoder.head if isinstance(one, nn.Linear)]
    total += sum(6.0 * one.weight.numel() * batch for one in head) - 2.0 * head[0].weight.numel() * batch
    return total + 6.0 * batch * candidates * head[-1].out_features


def _rate(card: Card, precision: str, how: str, sizes: Sizes, batch: int) -> tuple[float, float]:
    """Samples per second, and the share of the matrix rate."""
    state = state_of(card, head_alone(), sizes)
    if "compiled" in how and not compile_layers(state.model, card.device):
        return math.nan, math.nan
    step: Step = GraphedStep() if "graph" in how else train_step
    recipe, given = recipe_of(card, precision), batches_of(1, batch, card.device)[0]
    for _ in range(4):
        step(state, given, recipe)
    step_s = card.seconds(lambda: step(state, given, recipe))
    return batch / step_s, operations(state, batch) / step_s / card.limits[precision]


def measure_rates(card: Card) -> None:
    """By precision and by how the kernels are launched; the released loop beside them."""
    batch, sizes = (SMALL_BATCH, SMALL) if card.quick else (BATCH, LARGE)
    ways = [("bf16", "eager"), ("float32", "eager"), ("tf32", "eager")]
    if card.cuda:
        ways += [(one, how) for one in ("bf16", "tf32", "float32") for how in ("graph", "compiled, graph")]
    for precision, how in ways:
        rate, share = _rate(card, precision, how, sizes, batch)
        card.report(
            GpuRow(
                name=f"training from features, batch {batch}, queue {sizes.queue:,}, {precision}, {how}",
                value=rate,
                unit="samples/s",
                share=share,
                limit=f"{precision} matrix rate",
                target=300_000 if (precision, how) == ("bf16", "compiled, graph") else None,
            )
        )
    given, start_S2 = batches_of(1, batch, card.device)[0], uniform_on_sphere(sizes.queue, torch.Generator())
    model = untrained_released_geoclip().to(card.device)
    step = released_loop(model, given.images.float(), given.gps_deg_B2, start_S2.to(card.device))
    card.report(
        GpuRow(
            name=f"the released loop's step, batch {batch}, queue {sizes.queue:,}, float32, eager",
            value=batch / card.seconds(step),
            unit="samples/s",
            note="its location encoder has its full width" if card.quick else "",
        )
    )


def measure_losses(card: Card) -> None:
    """Loss over 200 steps beside the CPU's float32, by precision; eager and recorded steps on the card."""
    path: Path = card.memo["reference"]
    process: subprocess.Popen[bytes] = card.memo["process"]
    process.wait(timeout=300)
    expected = torch.tensor(json.loads(path.read_text()))
    sizes = SMALL if card.quick else LARGE
    for precision in ("float32", "tf32", "bf16"):
        ways: list[tuple[str, Step]] = [("eager", train_step)]
        if card.cuda:
            ways.append(("graph", GraphedStep()))
        for how, step in ways:
            found = torch.tensor(losses(card, card.device, precision, step, sizes))
            card.memo[f"losses {precision} {how}"] = found
            apart = (found - expected).abs() / expected
            card.report(
                GpuRow(
                    name=f"loss over {len(found)} steps beside the CPU's, {precision}, {how}",
                    value=100 * float(apart.max()),
                    unit="% apart at most",
                    note=f"mean {100 * float(apart.mean()):.3g} %; loss {expected[0]:.3f} to {expected[-1]:.3f}, "
                    f"here to {found[-1]:.3f}",
                )
            )
    if card.cuda:
        same = all(
            torch.equal(card.memo[f"losses {one} eager"], card.memo[f"losses {one} graph"])
            for one in ("float32", "tf32", "bf16")
        )
        card.report(
            GpuRow(name="recorded steps give the eager steps' losses to the bit", value=float(same), unit="1: yes")
        )


def measure_growth(card: Card) -> None:
    """Milliseconds of a step as hierarchies and queue grow, bf16, recorded."""
    batch, base = (SMALL_BATCH, SMALL) if card.quick else (BATCH, LARGE)
    how = "graph" if card.cuda else "eager"
    counts = (1, 3) if card.quick else tuple(range(1, 10))
    queues = (0, 64) if card.quick else (0, 1024, 4096, 16_384, 65_536)
    hierarchies = [replace(base, sigmas=tuple(2.0**power for power in range(count))) for count in counts]
    for sizes in [*hierarchies, *(replace(base, queue=queue) for queue in queues)]:
        rate, share = _rate(card, "bf16", how, sizes, batch)
        card.report(
            GpuRow(
                name=f"step from features, {len(sizes.sigmas)} scales, queue {sizes.queue:,}, bf16, {how}",
                value=1e3 * batch / rate,
                unit="ms",
                share=share,
                limit="bf16 matrix rate",
            )
        )


def measure_resume(card: Card) -> None:
    """Deterministic steps, stopped half-way and resumed from a checkpoint: the same bits?"""
    sizes, batch = (SMALL, SMALL_BATCH) if card.quick else (LARGE, BATCH)
    torch.use_deterministic_algorithms(True)
    try:
        recipe, given = recipe_of(card, "bf16"), batches_of(20, batch, card.device)

        def run(state: TrainState, batches: list[Batch]) -> TrainState:
            for one in batches:
                state.sums += train_step(state, one, recipe).sums
            return state

        through = run(state_of(card, head_alone(), sizes), given)
        half = run(state_of(card, head_alone(), sizes), given[:10])
        resumed = state_of(card, head_alone(), sizes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "step.safetensors"
            write_checkpoint(path, pack(state_tree(half, [rank_tree(half)], SkipReport())))
            restore_state(resumed, read_checkpoint(path), path)
        run(resumed, given[10:])
        same = all(
            torch.equal(one, other)
            for one, other in zip(through.model.parameters(), resumed.model.parameters(), strict=True)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    card.report(
        GpuRow(name="20 deterministic steps, resumed after 10: the same bits", value=float(same), unit="1: yes")
    )
