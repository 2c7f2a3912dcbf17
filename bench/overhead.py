"""The cost of checkpoints, records and wandb relative to the steps, each timed alone, in one process.

    python -m bench.overhead [--steps 60] [--output bench/overhead.json]

Blocks of steps with and without them differ by less than the noise of the machine, so that each part is timed alone:
the step, the record (metrics.jsonl, and wandb offline), the copy of the state that training waits for, and the writing
beside it, which counts with all of its processor time. The share is for compute.log_every_steps=20 and
compute.checkpoint_every_steps=200. Pictures and weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.features import WORLD, config_of, state_of
from geoclip.config import TrainConfig
from geoclip.data.batch import Batch, SkipReport
from geoclip.factory.training import build_recipe
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.runs.metrics import Recorder, WandbRun
from geoclip.runs.run_dir import provenance, write_json
from geoclip.training.checkpoint import pack, write_checkpoint
from geoclip.training.state import rank_tree, state_tree
from geoclip.training.step import train_step

RECORD_EVERY, CHECKPOINT_EVERY = 20, 200  # as conf/compute/local.yaml has them
NAMES = ("loss", "in_batch_recall", "broken", "taken", "lr", "logit_scale", "samples_per_s", "samples")
SET_UPS = {
    "embedded default, batch 256, queue 1,024": (),
    "paper's set-up from features, batch 512, queue 4,096": (
        *("encoder=clip_vit_l14", "location=geoclip", "queue=paper", "optim=paper"),
        "encoder.features=.",
    ),
}


def batches_of(config: TrainConfig) -> Iterator[Batch]:
    """Eight random batches, repeated."""
    generator, size = torch.Generator().manual_seed(0), config.optim.batch_size
    px, kept = config.encoder.image_px, []
    for number in range(8):
        images = (
            torch.randn(size, config.encoder.feature_dim, generator=generator)
            if config.encoder.features
            else torch.randint(0, 256, (size, 3, px, px), generator=generator, dtype=torch.uint8)
        )
        keys = [f"{number}-{row}" for row in range(size)]
        kept.append(Batch(images=images, gps_deg_B2=uniform_on_sphere(size, generator), keys=keys))
    return itertools.cycle(kept)


def measure(overrides: tuple[str, ...], steps: int, folder: Path) -> dict[str, Any]:
    """Medians of each part, and their share of the steps."""
    config = config_of(*overrides)
    state, batches = state_of(config), batches_of(config)
    recipe = build_recipe(config, 10**9, WORLD.device)
    spent: dict[str, list[float]] = {"step": [], "record": [], "copy": [], "write": []}
    wandb = WandbRun(folder, mode="offline", project="bench", entity=None, name="bench", config={}, run_id="bench")
    with Recorder(folder / "metrics.jsonl", wandb=wandb) as recorder:
        for number in range(steps):
            start = time.perf_counter()
            outcome = train_step(state, next(batches), recipe)
            state.sums += outcome.sums
            stepped = time.perf_counter()
            values = state.sums.tolist()
            recorder.record("train", state.step, **dict(zip(NAMES, values * 2, strict=True)))
            recorded = time.perf_counter()
            packed = pack(state_tree(state, [rank_tree(state)], SkipReport(), config={}))
            copied, cpu = time.perf_counter(), time.process_time()
            write_checkpoint(folder / "step-00000001.safetensors", packed)
            written = time.process_time()
            if number > steps // 10:  # the first ones warm up
                for name, seconds in zip(
                    spent, (stepped - start, recorded - stepped, copied - recorded, written - cpu), strict=True
                ):
                    spent[name].append(seconds)
    ms = {f"{name}_ms": 1000 * statistics.median(values) for name, values in spent.items()}
    beside = ms["record_ms"] / RECORD_EVERY + (ms["copy_ms"] + ms["write_ms"]) / CHECKPOINT_EVERY
    size = (folder / "step-00000001.safetensors").stat().st_size / 1e6
    return ms | {"overhead_percent": 100 * beside / ms["step_ms"], "checkpoint_mb": size, "steps": steps}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| | step, ms | record, ms | copy, ms | write, ms of processor | checkpoint, MB | all, % of the steps |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row['step_ms']:.0f} | {row['record_ms']:.2f} | {row['copy_ms']:.1f} | {row['write_ms']:.0f} | "
        f"{row['checkpoint_mb']:.1f} | {row['overhead_percent']:.2f} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    rows = {}
    for name, overrides in SET_UPS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(overrides, chosen.steps, Path(folder))
    write_json(chosen.output, {"rows": rows, **provenance()})
    chosen.output.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
