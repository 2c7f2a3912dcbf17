"""The frozen image encoder: ViT-L/14's features, and the training step around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from bench.card import Card, GpuRow
from bench.gpu_rows.state import LARGE, SMALL, recipe_of, state_of
from geoclip.data.batch import Batch
from geoclip.data.stream import on_device
from geoclip.factory.training import compile_layers
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.training.step import matrix_products, train_step

VIT_L14: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
VIT_B32: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
    "projection_dim": 512,
}
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
    "projection_dim": 16,
    "image_size": 28,
}


def image_encoder(card: Card, shape: dict[str, Any]) -> ImageEncoder:
    """Of random weights, frozen, on the device."""
    with torch.device(card.device):
        backbone = ClipBackbone(CLIPVisionModelWithProjection(CLIPVisionConfig(**shape)))
        encoder = ImageEncoder(backbone, feature_dim=backbone.feature_dim, hidden_dim=backbone.feature_dim)
    return encoder.to(card.device).eval()


def operations(shape: dict[str, Any]) -> float:
    """Multiplications and additions of one picture's features."""
    with torch.device("meta"):
        backbone = ClipBackbone(CLIPVisionModelWithProjection(CLIPVisionConfig(**shape)))
        pixels = torch.empty(1, 3, backbone.image_px, backbone.image_px)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(pixels)
    return float(counter.get_total_flops())


def pixels_of(card: Card, batch: int, shape: dict[str, Any]) -> Tensor:
    """Random pictures on the device, of the size that an encoder of this shape takes."""
    image_px = shape.get("image_size", 224)
    return torch.randint(0, 256, (batch, 3, image_px, image_px), dtype=torch.uint8, device=card.device)


def measure_features(card: Card) -> None:
    """Pictures per second of the frozen encoder, pictures on the device already."""
    _features(card, "ViT-B/32", TINY if card.quick else VIT_B32, 8 if card.quick else 512)
    torch.compiler.reset()
    _features(card, "ViT-L/14", TINY if card.quick else VIT_L14, 8 if card.quick else 512)


def _features(card: Card, name: str, shape: dict[str, Any], batch: int) -> None:
    encoder, work = image_encoder(card, shape), operations(shape)
    pixels = pixels_of(card, batch, shape)
    few = pixels[: max(1, batch // 8)]
    with torch.inference_mode():
        exact_BF = encoder.features(few)

    def rate(how: str, context: Callable[[], AbstractContextManager[object]], limit: str, part: Tensor) -> float:
        @torch.inference_mode()
        def run() -> None:
            with context():
                encoder.features(part)

        per_s = len(part) / card.seconds(run)
        with torch.inference_mode(), context():
            apart = float(((encoder.features(few) - exact_BF).norm(dim=1) / exact_BF.norm(dim=1)).max())
        card.report(
            GpuRow(
                name=f"{name} features, batch {len(part)}, {how}",
                value=per_s,
                unit="images/s",
                share=per_s * work / card.limits[limit],
                limit=f"{limit} matrix rate",
                target=0.6 if name == "ViT-L/14" and how.startswith("bf16, compiled") else None,
                note=f"{work / 1e9:.0f} GFLOP a picture; features at most {100 * apart:.2g} % from float32's",
            )
        )
        return per_s

    bf16 = partial(matrix_products, card.device, torch.bfloat16)
    plain = partial(matrix_products, card.device, None)
    rate("float32, eager, as the released code runs it", plain, "float32", few)
    best = rate("bf16 autocast, eager", bf16, "bf16", pixels)
    model = GeoCLIP(encoder, LocationEncoder([1.0], hidden_dim=8, depth=1))
    # Small and on the CPU it would only be the compiler that is tried, for half a minute.
    if card.cuda and compile_layers(model, card.device):
        best = max(best, rate("bf16, compiled blocks, float32 weights", bf16, "bf16", pixels))
    card.memo[name] = best


def measure_step(card: Card) -> None:
    """The training step with a frozen ViT-L/14, eager and compiled."""
    for compiled in (False, True) if card.cuda else (False,):
        _measure_step(card, compiled)


def _measure_step(card: Card, compiled: bool) -> None:
    """What the encoder takes of a step, and what copies from the host's memory cost."""
    shape, batch, sizes = (TINY, 8, SMALL) if card.quick else (VIT_L14, 512, LARGE)
    encoder = image_encoder(card, shape)
    state = state_of(card, encoder, sizes)
    recipe = recipe_of(card, "bf16")
    if compiled and not compile_layers(state.model, card.device):
        return
    pixels = pixels_of(card, batch, shape)
    gps_deg_B2 = uniform_on_sphere(batch, torch.Generator().manual_seed(1))
    here = Batch(images=pixels, gps_deg_B2=gps_deg_B2.to(card.device), keys=[""] * batch)

    @torch.no_grad()
    def features() -> None:
        with matrix_products(card.device, recipe.autocast):
            encoder.features(pixels)

    encoder_s = card.seconds(features)
    step_s = card.seconds(lambda: train_step(state, here, recipe))
    work, how = batch * operations(shape), "compiled" if compiled else "eager"
    card.report(
        GpuRow(
            name=f"frozen ViT-L/14 training step, batch {batch}, queue {sizes.queue:,}, {how}",
            value=batch / step_s,
            unit="samples/s",
            share=work / step_s / card.limits["bf16"],
            limit="bf16 matrix rate, the encoder's products alone",
            target=0.55,
        )
    )
    card.report(
        GpuRow(
            name=f"the rest of that step, beside the encoder, {how}",
            value=100 * (step_s - encoder_s) / step_s,
            unit="% of the step",
            target=5,
            note=f"encoder {1e3 * encoder_s:.1f} ms, step {1e3 * step_s:.1f} ms",
        )
    )
    hosts = [Batch(images=pixels.cpu(), gps_deg_B2=gps_deg_B2, keys=here.keys) for _ in range(2)]
    batches = on_device(cycle(hosts), card.device)
    fed_s = card.seconds(lambda: train_step(state, next(batches), recipe))
    card.report(
        GpuRow(
            name=f"the same step on batches from the host's memory, {how}",
            value=batch / fed_s,
            unit="samples/s",
            note=f"{100 * (fed_s / step_s - 1):.1f} % slower than from the device",
        )
    )
