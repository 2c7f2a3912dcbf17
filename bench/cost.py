"""What a full run on MP16 costs: bytes, memory, and the time of a step on 1, 8 and 32 cards.

    python -m bench.cost

Writes both tables into docs/clusters.md. The bytes and the memory are computed. The step's time is put together from
what `bench.gpu` measured on one card (bench/gpu.json) and what is assumed, each named in the table.
"""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from bench.gpu_rows.encoder import VIT_L14, operations
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.studies.readme import fill_generated
from geoclip.training.losses import Objective

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, EPOCHS, BATCH, QUEUE, VIEWS, PHOTO_BYTES = 4_720_000, 10, 512, 4096, 4, 90_000
STEPS = SAMPLES * EPOCHS // BATCH
FEATURE_BYTES = 128 + (1 + VIEWS) * 768 * 2  # a .npy's header, then half floats
CARDS = (1, 8, 32)
ENCODER_SHARE = 0.5  # of the matrix rate, where bench/gpu.json has no measurement
LINK_BYTES_PER_S = {8: 300e9, 32: 40e9}  # what a card sends to its neighbour: inside a machine, between machines


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside take at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_storage(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = call(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and _storage(one) not in known:
                size = one.untyped_storage().nbytes()
                weakref.finalize(one.untyped_storage(), self._freed, size)
                self.now += size
                self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def backbone_peak(batch: int) -> tuple[int, int]:
    """Bytes of ViT-L/14's forward pass at their peak, and its parameters."""
    with FakeTensorMode():
        vit = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_L14)).requires_grad_(False).eval()
        attention = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = lambda query, *_, **__: torch.empty_like(query)  # keeps no square matrix
        try:
            with Peak() as peak, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                vit(pixel_values=torch.empty(batch, 3, 224, 224, dtype=torch.uint8).float() / 255)
        finally:
            F.scaled_dot_product_attention = attention
    return peak.peak, sum(one.numel() for one in vit.parameters())


def trained_peak(batch: int) -> tuple[int, int]:
    """Bytes of the trained part, forward and backward, at their peak, and its parameters."""
    with FakeTensorMode():
        model = GeoCLIP(ImageEncoder(None), LocationEncoder())
        features, candidates = torch.zeros(batch, 768), torch.zeros(BATCH + QUEUE, 2)
        present = torch.ones(BATCH)
        pairs = Objective().pairs(candidates[:batch], candidates, present[:batch], present, 0)
        with Peak() as peak:
            with torch.autocast("cpu", torch.bfloat16):
                embedded = model(features, candidates)
            pairs(embedded)[0].backward()
    return peak.peak, sum(one.numel() for one in model.parameters())


def costs(cards: int, cached: bool) -> dict[str, str]:
    """Bytes and memory of one card."""
    rows, sample_bytes = BATCH // cards, FEATURE_BYTES if cached else PHOTO_BYTES
    vit_peak, vit_size = (0, 0) if cached else backbone_peak(rows)
    step_peak, size = trained_peak(rows)
    held = {
        "ViT-L/14, float32": 4 * vit_size,
        "trained weights, gradients, Adam's moments": 16 * size,
        "a batch, and the next": 2 * rows * (768 * 2 if cached else 3 * 224 * 224),
    }
    passing = {"ViT-L/14's forward pass": vit_peak, "the trained part, forward and backward": step_peak - 4 * size}
    on_device = SAMPLES * VIEWS * 768 * 2 if cached else 0
    return {
        "steps": f"{STEPS:,}",
        "samples per card and step": f"{rows:,}",
        "samples per card, in all": f"{STEPS * rows / 1e6:.2f} M",
        "read per card and step": f"{rows * sample_bytes / 1e6:.2f} MB",
        "read per card, in all": f"{STEPS * rows * sample_bytes / 1e9:,.0f} GB",
        "read by all cards, in all": f"{STEPS * BATCH * sample_bytes / 1e9:,.0f} GB",
        **{f"memory, GB: {name}": f"{size / 1e9:.2f}" for name, size in (held | passing).items()},
        "**memory, GB: in all**": f"**{(sum(held.values()) + max(passing.values())) / 1e9:.1f}**",
        "features on the device, GB, where they stay there": f"{on_device / 1e9:.0f}" if cached else "",
    }


def measured(found: dict[str, Any], start: str) -> float | None:
    """The best value among the rows of bench/gpu.json whose name begins so."""
    return max((row["value"] for row in found["rows"] if row["name"].startswith(start)), default=None)


def step_times(found: dict[str, Any], cards: int, cached: bool) -> dict[str, str]:
    """A step's parts on one of so many cards, in milliseconds."""
    rows, rate = BATCH // cards, 1e12 * (measured(found, "matrix product 8192³, bf16") or 0)
    images_per_s = measured(found, "ViT-L/14 features, batch 512, bf16")
    encoder_s = rows / (images_per_s or ENCODER_SHARE * rate / operations(VIT_L14))
    name = f"training from features, batch {BATCH}, queue {QUEUE:,}, bf16"
    trained_s, launched_s = (BATCH / (measured(found, f"{name}, {how}") or 1) for how in ("graph", "eager"))
    size = sum(one.numel() for one in GeoCLIP(ImageEncoder(None), LocationEncoder()).parameters())
    reduced_s = 0.0 if cards == 1 else 2 * (cards - 1) / cards * 4 * size / LINK_BYTES_PER_S[cards]
    host_s = 0.0 if cards == 1 and cached else launched_s  # a recorded step is launched as one
    step_s = max(host_s, (0.0 if cached else encoder_s) + max(trained_s, reduced_s))
    how_measured = "measured" if images_per_s else f"computed at {ENCODER_SHARE:.0%} of the measured matrix rate"
    return {
        f"encoder ({how_measured} on one card, divided)": "" if cached else f"{1e3 * encoder_s:.1f}",
        "the trained part on the card (measured, batch 512)": f"{1e3 * trained_s:.1f}",
        "gradients over the ranks, beside the backward pass (computed)": f"{1e3 * reduced_s:.2f}",
        "launching the trained part's kernels on the host, beside all of this (measured)": f"{1e3 * host_s:.1f}",
        "**step** (computed: the longer of card and host)": f"**{1e3 * step_s:.1f}**",
        "samples per second, all cards": f"{BATCH / step_s:,.0f}",
        "hours of 10 epochs": f"{STEPS * step_s / 3600:,.2f}",
        "photographs per second that readers must bring a card": "" if cached else f"{rows / step_s:,.0f}",
    }


def table(columns: dict[str, dict[str, str]], head: str) -> str:
    """Markdown."""
    names = next(iter(columns.values()))
    lines = [f"| {head} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | {' | '.join(values[name] for values in columns.values())} |" for name in names]
    return "\n".join(lines)


def main() -> None:
    """Fill the tables of docs/clusters.md."""
    found = json.loads((ROOT / "bench" / "gpu.json").read_text())
    which = {
        f"{cards} card{'s' if cards > 1 else ''}, {'features' if cached else 'photographs'}": (cards, cached)
        for cards in CARDS
        for cached in (False, True)
    }
    bytes_table = table({name: costs(*one) for name, one in which.items()}, "per card")
    times = table({name: step_times(found, *one) for name, one in which.items()}, "milliseconds of a step")
    card = f"Measured parts: {found['card']['device']}, revision `{found['git_revision'][:12]}`, bench/gpu.json."
    page = ROOT / "docs" / "clusters.md"
    page.write_text(fill_generated(page.read_text(), {"cost": bytes_table, "step": f"{times}\n\n{card}"}))
    print(bytes_table, times, card, sep="\n\n")


if __name__ == "__main__":
    main()
