"""Steps under PyTorch's own watch for host-device synchronisation, which raises at the first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import torch

from bench.card import Card, GpuRow
from bench.gpu_rows.encoder import TINY, image_encoder, pixels_of
from bench.gpu_rows.features import SMALL_BATCH, batches_of, head_alone
from bench.gpu_rows.state import SMALL, recipe_of, state_of
from geoclip.data.batch import Batch
from geoclip.data.stream import on_device
from geoclip.model.image_encoder import ImageEncoder
from geoclip.training.loop import Step
from geoclip.training.step import GraphedStep, train_step

WATCHED = 6


def measure_syncs(card: Card) -> None:
    """From pictures and from features, eager and recorded, batches copied from the host."""
    encoder, batch = image_encoder(card, TINY), SMALL_BATCH
    pixels = pixels_of(card, batch, TINY).cpu()
    features = batches_of(1, batch, torch.device("cpu"))[0]
    color = torch.tensor([[1.1, 0.9, 1.2, 0.05, 0.0]]).expand(batch, 5).contiguous()
    pictures = Batch(images=pixels, gps_deg_B2=features.gps_deg_B2, keys=features.keys, color_BK=color)
    _watched(card, "from pictures, eager", encoder, pictures, train_step)
    _watched(card, "from features, eager", head_alone(), features, train_step)
    if card.cuda:
        _watched(card, "from features, recorded", head_alone(), features, GraphedStep())


def _watched(card: Card, name: str, encoder: ImageEncoder, batch: Batch, step: Step) -> None:
    state, recipe = state_of(card, encoder, SMALL), recipe_of(card, "bf16")
    batches: Iterator[Batch] = on_device(cycle([batch]), card.device)
    for given in islice(batches, WATCHED):  # first calls compile kernels and record, which may wait
        step(state, given, recipe)
    if card.cuda:
        torch.cuda.set_sync_debug_mode("error")
    try:
        for given in islice(batches, WATCHED):
            state.sums += step(state, given, recipe).sums
    finally:
        if card.cuda:
            torch.cuda.set_sync_debug_mode("default")
    card.report(
        GpuRow(
            name=f"{WATCHED} steps {name}: host-device synchronisations",
            value=0.0,
            unit="",
            target=0.0,
            note="watched by torch.cuda.set_sync_debug_mode" if card.cuda else "no card: not watched",
        )
    )
