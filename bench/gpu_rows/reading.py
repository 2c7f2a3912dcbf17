"""Shards of photographs to decoded batches: pictures per second and core, and how many cores a card needs."""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.card import Card, GpuRow
from bench.stream import MP16, write_shards
from geoclip.data.batch import PictureDecoder
from geoclip.data.shards import all_samples, read_shards
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.transforms import Preprocessing

BATCH = 512


def photographs(count: int) -> list[bytes]:
    """JPEGs of 1024 x 768 at quality 90 of about 100 kB: smooth shapes with grain."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1024, 768), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = rng.normal(0, 3, (768, 1024, 1))
        file = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def measure_reading(card: Card) -> None:
    """With one worker and with as many as there are cores."""
    cores, batch = os.cpu_count() or 1, 32 if card.quick else BATCH
    jpegs = photographs(64 if card.quick else 192)
    size_kb = sum(map(len, jpegs)) / len(jpegs) / 1000
    rate = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), jpegs)
        for workers in sorted({1, cores}):
            rate = _rate(Path(folder), workers, batch, seconds=0.2 if card.quick else 5.0)
            card.report(
                GpuRow(
                    name=f"shards to decoded batches of {batch}, {workers} of {cores} cores",
                    value=rate,
                    unit="images/s",
                    note=f"1024 x 768, {size_kb:.0f} kB, cropped, flipped, to 224 pixels",
                )
            )
    for name in ("ViT-L/14", "ViT-B/32"):
        if name in card.memo:
            card.report(
                GpuRow(
                    name=f"cores that feed one card at {name}",
                    value=card.memo[name] / (rate / cores),
                    unit="cores",
                    note=f"{card.memo[name]:,.0f} images/s of the encoder, {rate / cores:,.0f} images/s of a core",
                )
            )


def _rate(folder: Path, workers: int, batch: int, seconds: float) -> float:
    plan = StreamPlan(
        subset=all_samples(read_shards(str(folder), "train")), streams=32, batch_size=batch, shuffle_buffer=50, seed=0,
        decoder=PictureDecoder(preprocessing=Preprocessing(image_px=224), augmentation=MP16),
    )  # fmt: skip
    batches = train_batches(plan, rank=0, world_size=1, workers=workers, first_step=0, last_step=10**6)
    try:
        for _ in range(5):  # what was read ahead while the workers started
            next(batches)
        start_s, count = time.perf_counter(), 0
        while time.perf_counter() - start_s < seconds:
            count += len(next(batches).keys)
        return count / (time.perf_counter() - start_s)
    finally:
        batches.close()
