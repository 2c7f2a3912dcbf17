"""Bytes that the stream reads at each data fraction, and seconds until it resumes at a step.

    python -m bench.reading [--data data/bluemarble] [--output bench/reading.json]

Bytes are those that Linux counts for this process's read calls (/proc/self/io), over one epoch, indices included.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from geoclip.data.batch import PictureDecoder
from geoclip.data.shards import Shard, read_shards, take_fraction
from geoclip.data.stream import StreamPlan, TrainStream
from geoclip.data.transforms import Preprocessing
from geoclip.runs.run_dir import provenance, write_json

STREAMS, BATCH = 16, 256


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def plan_of(shards: list[Shard], fraction: float) -> StreamPlan:
    """The embedded default's stream; pictures are decoded very small, which reads just as many bytes."""
    return StreamPlan(
        subset=take_fraction(shards, fraction, 0), streams=STREAMS, batch_size=BATCH, shuffle_buffer=1000, seed=0,
        decoder=PictureDecoder(preprocessing=Preprocessing(image_px=4)),
    )  # fmt: skip


def fraction_row(shards: list[Shard], fraction: float) -> dict[str, Any]:
    """Bytes of one epoch."""
    plan = plan_of(shards, fraction)
    steps = plan.samples // BATCH
    before = bytes_read()
    for _ in TrainStream(plan, rank=0, world_size=1, first_step=0, last_step=steps):
        pass
    stored = sum(Path(shard.path).stat().st_size for shard in shards)
    return {"fraction": fraction, "samples": steps * BATCH, "bytes": bytes_read() - before, "stored": stored}


def position_row(shards: list[Shard], share: float) -> dict[str, Any]:
    """Seconds from nothing to the first batch at a step, with the shards' indices kept but not in memory."""
    plan = plan_of(shards, 1.0)
    steps = plan.samples // BATCH
    step = round(share * (steps - 1))
    before, start_s = bytes_read(), time.perf_counter()
    next(iter(TrainStream(plan, rank=0, world_size=1, first_step=step, last_step=steps)))
    return {"step": step, "of": steps, "seconds": time.perf_counter() - start_s, "bytes": bytes_read() - before}


def table(fractions: list[dict[str, Any]], positions: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| data.fraction | samples | bytes read | of what is stored |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {row['fraction']:g} | {row['samples']:,} | {row['bytes'] / 1e6:,.1f} MB "
        f"| {row['bytes'] / row['stored']:.1%} |"
        for row in fractions
    ]
    lines += ["", "| going on at step | first batch after | bytes read until then |", "| --- | ---: | ---: |"]
    lines += [
        f"| {row['step']} of {row['of']} | {row['seconds']:.2f} s | {row['bytes'] / 1e6:,.1f} MB |" for row in positions
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the tables, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/bluemarble"), help="the embedded default's shards")
    parser.add_argument("--output", type=Path, default=Path("bench/reading.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shards = read_shards(str(arguments.data), "train")
    fractions = [fraction_row(shards, fraction) for fraction in (0.05, 0.1, 0.2, 1.0)]
    positions = [position_row(shards, share) for share in (0.0, 0.5, 1.0)]
    write_json(arguments.output, {"fractions": fractions, "positions": positions, "provenance": provenance()})
    arguments.output.with_suffix(".md").write_text(table(fractions, positions))
    print(table(fractions, positions))


if __name__ == "__main__":
    main()
