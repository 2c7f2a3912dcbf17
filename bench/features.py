"""Training samples per second from kept features and from pictures, in one process, steps interleaved.

    python -m bench.features [--data data/bluemarble] [--output bench/features.json]

Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.config import QueueStart, TrainConfig, typed
from geoclip.config.composed import conf_dir
from geoclip.data.batch import Batch, Decoder, PictureDecoder
from geoclip.data.features import FeatureDecoder, ViewsDecoder
from geoclip.data.shards import Shard, all_samples, read_shards
from geoclip.data.stream import StreamPlan, train_batches
from geoclip.data.transforms import Augmentation
from geoclip.distributed import World
from geoclip.factory.data import build_preprocessing
from geoclip.factory.model import build_model
from geoclip.factory.training import build_optimizer, build_queue, build_recipe
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.inference.extraction import close_split, extract_features
from geoclip.model.backbones import ClipBackbone
from geoclip.runs.run_dir import provenance, write_json
from geoclip.training.state import TrainState
from geoclip.training.step import train_step

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


def config_of(*overrides: str) -> TrainConfig:
    """A training configuration, unchecked: weights named in it are never read."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("train", list(overrides)), TrainConfig, lambda _: [])


def state_of(config: TrainConfig) -> TrainState:
    """A state at step 0 whose queue starts anywhere."""
    config.queue.start = QueueStart.sphere
    model = build_model(config)
    return TrainState(
        model=model,
        parallel=model,
        queue=build_queue(config.queue, [], 0),
        optimizer=build_optimizer(config.optim, model),
        noise=torch.Generator().manual_seed(0),
    )


def timed(step: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def embedded_default(data: Path, repeats: int) -> dict[str, Any]:
    """Steps of the embedded default, stream included: its backbone frozen and run, or its features read."""
    shards = read_shards(str(data), "train")[:2]
    config = config_of("encoder.tune=frozen")
    state = state_of(config)
    recipe = build_recipe(config, 64_000, WORLD.device)
    with tempfile.TemporaryDirectory() as folder:
        preprocessing = build_preprocessing(config.encoder)
        views = ViewsDecoder(preprocessing=preprocessing, augmentation=Augmentation(), seed=0, views=0)
        split = Path(folder) / "train"
        extract_features(state.model.image_encoder, shards, split, views, world=WORLD, workers=0, batch_size=256)
        close_split(split, shards)
        decoders: dict[str, tuple[list[Shard], Decoder]] = {
            "pictures": (shards, PictureDecoder(preprocessing=preprocessing)),
            "features": (
                read_shards(folder, "train"),
                FeatureDecoder(feature_dim=config.encoder.feature_dim, views=0, training=True),
            ),
        }
        streams = {}
        for name, (found, decoder) in decoders.items():
            plan = StreamPlan(
                subset=all_samples(found), streams=16, batch_size=256, shuffle_buffer=1000, seed=0, decoder=decoder
            )
            streams[name] = train_batches(plan, rank=0, world_size=1, workers=0, first_step=0, last_step=repeats + 1)
        seconds: dict[str, list[float]] = {name: [] for name in streams}
        for repeat in range(repeats + 1):
            for name, batches in streams.items():
                spent = timed(lambda batches=batches: train_step(state, next(batches), recipe))  # type: ignore[misc]
                if repeat:  # the first one warms up
                    seconds[name].append(spent)
    return row("embedded default, batch 256, queue 1,024", 256, seconds["pictures"], seconds["features"])


def paper_set_up(repeats: int, pictures: int = 4) -> dict[str, Any]:
    """Steps of the paper's set-up at batch 512; ViT-L/14 is run on a few pictures, its seconds count for each."""
    clip = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    backbone = ClipBackbone(CLIPVisionModelWithProjection(clip)).eval()
    config = config_of("+experiment=full_mp16", "encoder.features=none")
    state = state_of(config)
    recipe = build_recipe(config, 4_000_000, WORLD.device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(pictures, 3, 224, 224, generator=generator)
    batch = Batch(
        images=torch.randn(512, 768, generator=generator).half(),
        gps_deg_B2=uniform_on_sphere(512, generator),
        keys=[""] * 512,
    )

    @torch.inference_mode()
    def encode() -> Tensor:
        out: Tensor = backbone(pixels)
        return out

    encode_s, step_s = [], []
    for _ in range(repeats):
        encode_s.append(timed(encode) / pictures)
        step_s.append(timed(lambda: train_step(state, batch, recipe)))
    from_pictures = [512 * one + step for one, step in zip(encode_s, step_s, strict=True)]
    return row("paper's set-up, batch 512, queue 4,096", 512, from_pictures, step_s)


def row(name: str, batch: int, pictures_s: list[float], features_s: list[float]) -> dict[str, Any]:
    """Medians, and the ratio with its spread."""
    ratios = sorted(a / b for a, b in zip(pictures_s, features_s, strict=True))
    return {
        "name": name,
        "pictures_per_s": batch / statistics.median(pictures_s),
        "features_per_s": batch / statistics.median(features_s),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "repeats": len(ratios),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| training samples/s | from pictures | from features | ratio (lowest–highest) |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['name']} | {one['pictures_per_s']:,.2f} | {one['features_per_s']:,.0f} "
        f"| {one['ratio']:.3g} ({one['ratio_low']:.3g}–{one['ratio_high']:.3g}) |"
        for one in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/bluemarble"), help="the embedded default's shards")
    parser.add_argument("--output", type=Path, default=Path("bench/features.json"))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    rows = [embedded_default(arguments.data, arguments.repeats), paper_set_up(max(3, arguments.repeats // 3))]
    write_json(arguments.output, {"rows": rows, "provenance": provenance()})
    arguments.output.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
