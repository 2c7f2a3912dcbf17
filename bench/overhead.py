"""What checkpoints, records and wandb cost beside the steps themselves, in one process, blocks of steps interleaved.

    python bench/overhead.py [--repeats 7] [--steps 100] [--output bench/overhead.json]

A block with everything has a record every 20 steps, mirrored to wandb offline, and one checkpoint, whose writing is
waited for; the other block is nothing but `train_step`. Pictures and weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from features import WORLD, config_of, state_of

from geoclip.build import build_recipe
from geoclip.config import TrainConfig
from geoclip.data.batch import Batch, SkipReport
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.recorder import Recorder, WandbMirror
from geoclip.run_dir import provenance, write_json
from geoclip.training.keeping import CheckpointWriter
from geoclip.training.loop import Hooks, train
from geoclip.training.state import TrainState, rank_tree, state_tree
from geoclip.training.step import train_step

SET_UPS = {
    "embedded default, batch 256, queue 1,024": (),
    "paper's set-up from features, batch 512, queue 4,096": (
        *("encoder=clip_vit_l14", "location=geoclip", "queue=paper", "optim=paper"),
        "encoder.features=.",
    ),
}


def batches_of(config: TrainConfig) -> Iterator[Batch]:
    """Eight random batches, for ever."""
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


def hooks_into(recorder: Recorder, writer: CheckpointWriter, steps: int) -> Hooks:
    """Records and checkpoints as a run has them."""

    def record(state: TrainState, values: dict[str, Any]) -> None:
        recorder.record("train", state.step, **values)

    def checkpoint(state: TrainState) -> None:
        writer.save(state.step, state_tree(state, [rank_tree(state)], SkipReport(), config={}))

    return Hooks(
        record=record,
        validate=lambda _: True,
        checkpoint=checkpoint,
        record_every=20,
        validate_every=steps,
        checkpoint_every=steps,
    )


def measure(overrides: tuple[str, ...], repeats: int, steps: int, folder: Path) -> dict[str, Any]:
    """Seconds of each block, and what of it is not steps."""
    config = config_of(*overrides)
    state, batches = state_of(config), batches_of(config)
    recipe = build_recipe(config, 10**9, WORLD.device)
    bare_s, whole_s, waited_s = [], [], []
    mirror = WandbMirror(
        folder, mode="offline", project="bench", entity=None, name="bench", config={}, run_id="bench"
    )
    with Recorder(folder / "metrics.jsonl", mirror=mirror) as recorder, CheckpointWriter(folder, 2) as writer:
        hooks = hooks_into(recorder, writer, steps)
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            for _ in range(steps):
                train_step(state, next(batches), recipe)
            middle = time.perf_counter()
            train(state, batches, replace(recipe, last_step=state.step + steps), hooks, WORLD)
            ended = time.perf_counter()
            writer.wait()
            if repeat:  # the first one warms up
                bare_s.append(middle - start)
                waited_s.append(time.perf_counter() - ended)
                whole_s.append(time.perf_counter() - middle)
    ratios = [whole / bare - 1 for whole, bare in zip(whole_s, bare_s, strict=True)]
    return {
        "step_ms": 1000 * statistics.median(bare_s) / steps,
        "overhead_percent": 100 * statistics.median(ratios),
        "overhead_percent_low": 100 * min(ratios),
        "overhead_percent_high": 100 * max(ratios),
        "waited_for_the_disk_ms": 1000 * statistics.median(waited_s),
        "checkpoint_mb": max(path.stat().st_size for path in folder.glob("step-*")) / 1e6,
        "blocks": repeats,
        "steps_per_block": steps,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| | step, ms | checkpoint, MB | records, wandb and a checkpoint per block, % of the steps (lowest–highest) |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row['step_ms']:.0f} | {row['checkpoint_mb']:.1f} | {row['overhead_percent']:.1f} "
        f"({row['overhead_percent_low']:.1f}–{row['overhead_percent_high']:.1f}) |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write JSON and table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    rows = {}
    for number, (name, overrides) in enumerate(SET_UPS.items()):
        steps = chosen.steps if number == 0 else max(20, chosen.steps // 5)
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(overrides, chosen.repeats, steps, Path(folder))
    write_json(chosen.output, {"rows": rows, **provenance()})
    chosen.output.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
