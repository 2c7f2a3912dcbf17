"""The stream on photograph-sized JPEGs beside the released loader's way, on one core, chunks interleaved.

    python -m bench.stream [--photographs 192] [--output bench/stream.json]

The photographs are 1024 x 768 pieces of NASA's Blue Marble, enlarged and with grain, so that they compress as
photographs do. Both sides deliver float32 batches of 224 x 224, cropped, flipped, jittered and normalised. What is
counted are this one thread's processor seconds, so that others at work on the machine disturb little.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features

from bench.released_loader import MEAN, STD, random_box, released_sample
from geoclip.data.batch import Batch, PictureDecoder
from geoclip.data.blue_marble import read_earth
from geoclip.data.shards import all_samples, read_shards
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.transforms import Augmentation, Preprocessing, jitter_colors
from geoclip.prepare import shard_writing
from geoclip.runs.run_dir import provenance, write_json

MP16 = Augmentation(crop_scale_min=0.08, crop_ratio=4 / 3, flip=True, color_jitter=0.8, grayscale=0.2)
BATCH = 32
RELEASED = "released loader"
WHOLE = "libjpeg alone, whole pictures"
SCALED = "libjpeg alone, scaled as the crops allow"


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
        Image.fromarray((np.asarray(piece) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def released(paths: list[Path]) -> Iterator[torch.Tensor]:
    """Float batches as the released loader makes them."""
    rng = np.random.default_rng(0)
    while True:
        for start in range(0, len(paths), BATCH):
            yield torch.stack([released_sample(path, rng) for path in paths[start : start + BATCH]])


def normalised(batch: Batch) -> torch.Tensor:
    """What training does with a batch on the device, here on the same core."""
    assert batch.color_BK is not None
    return jitter_colors(batch.images, batch.color_BK).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


def write_shards(folder: Path, jpegs: list[bytes]) -> None:
    """Two shards in `folder`/train."""
    place = json.dumps({"lat": 1.0, "lon": 2.0}).encode()
    samples = [{"__key__": f"{row:05d}", "jpg": jpeg, "json": place} for row, jpeg in enumerate(jpegs)]
    half = len(jpegs) // 2
    shard_writing.write_shards(folder / "train", "train", iter(samples), [half, len(jpegs) - half])


def decodes(jpegs: list[bytes], *, scaled: bool) -> Callable[[], None]:
    """Decode a batch: in full, or at the scales that random crops to 224 need, as the stream does. Nothing else."""
    turn, rng = itertools.cycle(jpegs), np.random.default_rng(0)

    def decode_batch() -> None:
        for jpeg in islice(turn, BATCH):
            image = Image.open(io.BytesIO(jpeg))
            if scaled:
                left, top, right, bottom = random_box(image.size, rng)
                shrink = max(1, min(right - left, bottom - top) // 224)
                image.draft("RGB", (image.width // shrink, image.height // shrink))
            image.load()

    return decode_batch


def measure(folder: Path, jpegs: list[bytes], repeats: int) -> dict[str, Any]:
    """Samples per second of every way, from chunks of a batch that take turns."""
    paths = []
    for number, jpeg in enumerate(jpegs):
        paths.append(folder / f"{number:05d}.jpg")
        paths[-1].write_bytes(jpeg)
    write_shards(folder, jpegs)
    plan = StreamPlan(
        subset=all_samples(read_shards(str(folder), "train")), streams=4, batch_size=BATCH, shuffle_buffer=50, seed=0,
        decoder=PictureDecoder(preprocessing=Preprocessing(image_px=224), augmentation=MP16),
    )  # fmt: skip
    ours, uint8 = (
        train_batches(plan, rank=0, world_size=1, workers=0, first_step=0, last_step=repeats + 1) for _ in range(2)
    )
    theirs = released(paths)
    ways: dict[str, Callable[[], object]] = {
        RELEASED: lambda: next(theirs),
        "stream, colours and normalisation on the same core": lambda: normalised(next(ours)),
        "stream, as it leaves the worker": lambda: next(uint8),
        WHOLE: decodes(jpegs, scaled=False),
        SCALED: decodes(jpegs, scaled=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            start_s = time.process_time()
            run()
            if repeat:  # the first one warms up
                seconds[name].append(time.process_time() - start_s)
    return {name: summary(spent, seconds) for name, spent in seconds.items()}


def summary(spent_s: list[float], seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the turns; ratios are taken turn by turn, with their quartiles."""

    def ratios_to(name: str) -> list[float]:
        return [other / ours for other, ours in zip(seconds[name], spent_s, strict=True)]

    low, ratio, high = statistics.quantiles(ratios_to(RELEASED), n=4)
    return {
        "samples_per_s": BATCH / statistics.median(spent_s),
        "ratio_to_released": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "share_of_whole_decodes": statistics.median(ratios_to(WHOLE)),
        "share_of_scaled_decodes": statistics.median(ratios_to(SCALED)),
    }


def table(found: dict[str, Any], described: dict[str, Any], machine: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| one core, 1024 × 768 JPEGs | samples/s | ratio to the released loader (quartiles) "
        "| share of libjpeg, whole pictures | share of libjpeg, scaled |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row['samples_per_s']:,.0f} | {row['ratio_to_released']:.2f} "
        f"({row['ratio_low']:.2f}–{row['ratio_high']:.2f}) | {row['share_of_whole_decodes']:.0%} "
        f"| {row['share_of_scaled_decodes']:.0%} |"
        for name, row in found.items()
    ]
    return "\n".join(lines) + (
        f"\n\n{described['photographs']} pictures of {described['mean_bytes'] / 1000:.0f} kB in the mean, "
        f"{described['turns']} turns of {described['batch']}; {machine['processor']}; PyTorch {torch.__version__}, "
        f"Pillow {PIL.__version__}, libjpeg-turbo {described['libjpeg_turbo']}.\n"
    )


def main() -> None:
    """Measure, print the table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    made_by = provenance()
    write_json(arguments.output, {"ways": found, "described": described, "provenance": made_by})
    page = table(found, described, made_by["machine"])
    arguments.output.with_suffix(".md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
