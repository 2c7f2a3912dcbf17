"""The data stream on photograph-sized JPEGs, beside the released loader's way, on one core."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from bench.harness import Row
from bench.stream import BATCH, RELEASED, SCALED, photographs
from bench.stream import measure as measure_ways

OURS = "stream, colours and normalisation on the same core"


def measure(quick: bool) -> list[Row]:
    """Float32 batches of 224 x 224 from JPEGs of 1024 x 768: cropped, flipped, jittered, normalised."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = measure_ways(Path(folder), photographs(64 if quick else 192), 5 if quick else 24)
    torch.set_num_threads(threads)
    ours = ways[OURS]
    return [
        Row(
            name=f"stream of 1024 × 768 JPEGs, a batch of {BATCH} on one core",
            ours_s=BATCH / ours["samples_per_s"],
            released_s=BATCH / ways[RELEASED]["samples_per_s"],
            ratio=ours["ratio_to_released"],
            ratio_low=ours["ratio_low"],
            ratio_high=ours["ratio_high"],
            target=2,
            limit_s=BATCH / ways[SCALED]["samples_per_s"],
            limit_of="libjpeg alone",
            agreement="the released loader's operations, other random crops",
            note="processor seconds; tests/data hold the pictures to the reference",
        )
    ]
