"""The stream on photograph-sized JPEGs beside the released loader's way, on one core, chunks interleaved.

    python bench/stream.py [--photographs 192] [--output bench/stream.json]

The photographs are 1024 x 768 pieces of NASA's Blue Marble, enlarged and with grain, so that they compress as
photographs do. Both sides deliver float32 batches of 224 x 224, cropped, flipped, jittered and normalised.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from released_loader import MEAN, STD, released_sample

from geoclip.data.augment import Augmentation
from geoclip.data.batch import Batch
from geoclip.data.blue_marble import read_earth
from geoclip.data.color import jitter_colors
from geoclip.data.decoding import PictureDecoder
from geoclip.data.shard_list import read_shards
from geoclip.data.shard_writing import write_index, write_tar
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.subset import whole
from geoclip.run_dir import provenance, write_json

MP16 = Augmentation(crop_scale_min=0.08, crop_ratio=4 / 3, flip=True, color_jitter=0.8, grayscale=0.2)
BATCH = 32


def photographs(count: int) -> list[bytes]:
    """JPEGs of 1024 x 768 at quality 90, of some 150 kB; MP16's are of 95 kB in the mean."""
    earth = Image.fromarray(read_earth(5400))
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        left, top = int(rng.integers(0, 5400 - 512)), int(rng.integers(300, 2300 - 384))
        piece = earth.crop((left, top, left + 512, top + 384)).resize((1024, 768), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 3, (768, 1024, 1))
        file = io.BytesIO()
        Image.fromarray((np.asarray(piece) + grain).clip(0, 255).astype(np.uint8)).save(
            file, "JPEG", quality=90
        )
        made.append(file.getvalue())
    return made


def released(paths: list[Path]) -> Iterator[torch.Tensor]:
    """Float batches as the released loader makes them."""
    rng = np.random.default_rng(0)
    while True:
        for start in range(0, len(paths), BATCH):
            yield torch.stack([released_sample(path, rng) for path in paths[start : start + BATCH]])


def normalised(batch: Batch) -> torch.Tensor:
    """What training does with a batch on the device."""
    assert batch.color_BK is not None
    return (jitter_colors(batch.images, batch.color_BK).float() / 255).sub_(MEAN).div_(STD)


def measure(folder: Path, jpegs: list[bytes], repeats: int) -> dict[str, Any]:
    """Samples per second of every way, from chunks of a batch that take turns."""
    paths = []
    for number, jpeg in enumerate(jpegs):
        paths.append(folder / f"{number:05d}.jpg")
        paths[-1].write_bytes(jpeg)
    (folder / "train").mkdir()
    half = len(jpegs) // 2
    shards = []
    for start in (0, half):
        samples = [
            {
                "__key__": f"{row:05d}",
                "jpg": jpegs[row],
                "json": json.dumps({"lat": 1.0, "lon": 2.0}).encode(),
            }
            for row in range(start, start + half)
        ]
        path = folder / "train" / f"{start:06d}.tar"
        shards.append((path, write_tar(path, samples)))
    write_index(folder / "train", "train", shards)
    plan = StreamPlan(
        subset=whole(read_shards(str(folder), "train")), streams=4, batch_size=BATCH, shuffle_buffer=50, seed=0,
        decoder=PictureDecoder(image_px=224, augmentation=MP16),
    )  # fmt: skip

    def stream() -> Iterator[Batch]:
        return train_batches(plan, rank=0, world_size=1, workers=0, first_step=0, last_step=10_000)

    ours, uint8, theirs = stream(), stream(), released(paths)
    again = iter(range(10**9))

    def whole_decodes() -> None:
        for number in islice(again, BATCH):
            Image.open(io.BytesIO(jpegs[number % len(jpegs)])).load()

    ways: dict[str, Callable[[], object]] = {
        "released loader": lambda: next(theirs),
        "stream, colours and normalisation on the CPU": lambda: normalised(next(ours)),
        "stream, as it leaves the worker": lambda: next(uint8),
        "libjpeg alone, whole pictures": whole_decodes,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            start_s = time.perf_counter()
            run()
            if repeat:  # the first one warms up
                seconds[name].append(time.perf_counter() - start_s)
    raw = seconds["libjpeg alone, whole pictures"]
    return {name: summary(spent, seconds["released loader"], raw) for name, spent in seconds.items()}


def summary(spent_s: list[float], released_s: list[float], libjpeg_s: list[float]) -> dict[str, float]:
    """Medians over the turns; ratios are taken turn by turn, with their quartiles."""
    ratios = [theirs / ours for theirs, ours in zip(released_s, spent_s, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "samples_per_s": BATCH / statistics.median(spent_s),
        "ratio_to_released": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "share_of_libjpeg": statistics.median(
            raw / ours for raw, ours in zip(libjpeg_s, spent_s, strict=True)
        ),
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| one core, 1024 × 768 JPEGs | samples/s | ratio to the released loader (quartiles) | share of libjpeg |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row['samples_per_s']:,.0f} | {row['ratio_to_released']:.2f} "
        f"({row['ratio_low']:.2f}–{row['ratio_high']:.2f}) | {row['share_of_libjpeg']:.0%} |"
        for name, row in found.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("bench/stream.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jpegs = photographs(arguments.photographs)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), jpegs, arguments.repeats)
    described = {
        "photographs": len(jpegs),
        "mean_bytes": round(statistics.mean(map(len, jpegs))),
        "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
        "turns": arguments.repeats,
        "batch": BATCH,
    }
    write_json(arguments.output, {"ways": found, "described": described, "provenance": provenance()})
    arguments.output.with_suffix(".md").write_text(table(found))
    print(table(found), described)


if __name__ == "__main__":
    main()
