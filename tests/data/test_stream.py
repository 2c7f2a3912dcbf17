"""The stream: the same batches whoever reads them, whatever is broken."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geoclip.data.augment import Augmentation
from geoclip.data.batch import Batch, SkipReport
from geoclip.data.shard_index import fingerprint, read_shards
from geoclip.data.stream import StreamPlan, evaluation_batches, train_batches
from geoclip.data.subset import Stretch, take_fraction
from geoclip.errors import DataError


def plan_of(
    root: Path, *, fraction: float = 1.0, seed: int = 0, batch_size: int = 8, **changes: Any
) -> StreamPlan:
    return StreamPlan(
        subset=take_fraction(read_shards(str(root), "train"), fraction, seed),
        streams=changes.get("streams", 4),
        batch_size=batch_size,
        shuffle_buffer=changes.get("shuffle_buffer", 10),
        seed=seed,
        image_px=changes.get("image_px", 16),
        augmentation=changes.get("augmentation", Augmentation()),
    )


def global_keys(
    plan: StreamPlan, *, ranks: int = 1, workers: int = 0, first: int = 0, last: int = 12
) -> list[list[str]]:
    """Keys of every global batch: the ranks' batches side by side."""
    parts = [
        [
            batch.keys
            for batch in batches_of(plan, rank=rank, ranks=ranks, workers=workers, first=first, last=last)
        ]
        for rank in range(ranks)
    ]
    return [[key for keys in step for key in keys] for step in zip(*parts, strict=True)]


def batches_of(
    plan: StreamPlan, *, rank: int = 0, ranks: int = 1, workers: int = 0, first: int = 0, last: int = 12
) -> list[Batch]:
    return list(
        train_batches(plan, rank=rank, world_size=ranks, workers=workers, first_step=first, last_step=last)
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 2), (1, 3), (2, 0), (2, 2), (4, 1)])
def test_the_order_depends_on_neither_ranks_nor_workers(
    tiny_shards: Callable[..., Any], seed: int, ranks: int, workers: int
) -> None:
    plan = plan_of(tiny_shards([10, 11, 10, 9]).root, seed=seed)
    assert plan.steps_per_epoch == 5  # so that 12 steps pass two epochs' ends
    assert global_keys(plan, ranks=ranks, workers=workers) == global_keys(plan)


@pytest.mark.parametrize("first", [1, 4, 5, 7, 11])
def test_it_goes_on_where_it_stopped(tiny_shards: Callable[..., Any], first: int) -> None:
    plan = plan_of(tiny_shards([10, 11, 10, 9]).root)
    assert global_keys(plan, first=first) == global_keys(plan)[first:]


def test_an_epoch_shows_every_sample_once_and_epochs_differ(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([10, 11, 10, 9])
    steps = global_keys(plan_of(shards.root), last=10)
    epochs = [[key for step in steps[start : start + 5] for key in step] for start in (0, 5)]
    assert set(epochs[0]) == set(epochs[1]) == set(shards.gps_deg)
    assert len(epochs[0]) == 40 and epochs[0] != epochs[1]


def test_pixels_and_places_belong_together(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([16, 16])
    for batch in batches_of(plan_of(shards.root), workers=1, last=4):
        expected = torch.tensor([shards.gps_deg[key] for key in batch.keys])
        torch.testing.assert_close(batch.gps_deg_B2, expected)
        red, green = batch.pixels_BCHW[:, 0, 8, 8].float(), batch.pixels_BCHW[:, 1, 8, 8].float()
        torch.testing.assert_close(red, (expected[:, 0] + 90).round(), atol=1, rtol=0)
        torch.testing.assert_close(green, ((expected[:, 1] + 180) / 2).round(), atol=1, rtol=0)


def test_a_fraction_reads_nothing_else(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([40, 40, 40, 40])
    plans = {fraction: plan_of(shards.root, fraction=fraction) for fraction in (0.2, 0.5)}
    seen = {
        fraction: {key for step in global_keys(plan, last=30) for key in step}
        for fraction, plan in plans.items()
    }
    assert len(seen[0.2]) == 32 and len(seen[0.5]) == 80
    assert seen[0.2] < seen[0.5]


def test_augmentation_is_the_same_whoever_decodes(tiny_shards: Callable[..., Any]) -> None:
    strong = Augmentation(crop_scale_min=0.1, crop_ratio=4 / 3, flip=True, color_jitter=0.8, grayscale=0.2)
    plan = plan_of(tiny_shards([16, 16], size_px=24).root, augmentation=strong)
    one, two = batches_of(plan, workers=0, last=4), batches_of(plan, workers=2, last=4)
    assert all(torch.equal(a.pixels_BCHW, b.pixels_BCHW) for a, b in zip(one, two, strict=True))
    plain = batches_of(plan_of(tiny_shards([16, 16], size_px=24).root), last=1)[0]
    assert not torch.equal(one[0].pixels_BCHW, plain.pixels_BCHW)


def damage(path: Path, kind: str) -> None:
    """Break the second sample of a shard, or the shard itself."""
    if kind == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    elif kind == "text":
        path.write_text("this is no tar")
    else:
        _rewrite(path, kind)


def _rewrite(path: Path, kind: str) -> None:
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    victim = sorted({name.split(".")[0] for name, _ in members})[1]
    every: dict[str, dict[str, bytes | None]] = {
        "html": {"png": b"<html>404</html>"},
        "empty picture": {"png": b""},
        "half a picture": {"png": next(data for name, data in members if name == f"{victim}.png")[:60]},
        "nan": {"json": json.dumps({"lat": float("nan"), "lon": 0}).encode()},
        "out of range": {"json": json.dumps({"lat": 120, "lon": 0}).encode()},
        "no lon": {"json": b'{"lat": 3}'},
        "no json": {"json": None},
        "no picture": {"png": None},
    }
    changes = every[kind]
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            if name.startswith(victim):
                data = changes.get(name.split(".")[1], data)
            if data is not None:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


REASONS = {
    "cut": "shard ends early",
    "zeros": "shard ends early",
    "text": "shard ends early (ReadError",
    "html": "unreadable picture (UnidentifiedImageError)",
    "empty picture": "unreadable picture",
    "half a picture": "unreadable picture",
    "nan": "coordinates out of range",
    "out of range": "coordinates out of range",
    "no lon": "json without numbers lat and lon",
    "no json": "no json",
    "no picture": "no picture",
}


@pytest.mark.parametrize("kind", REASONS)
def test_what_is_broken_is_skipped_counted_and_named(tiny_shards: Callable[..., Any], kind: str) -> None:
    shards = tiny_shards([20, 20, 20])
    read_shards(str(shards.root), "train")  # counted before the damage
    stretches = [
        Stretch(path=shard.path, start=0, stop=20) for shard in read_shards(str(shards.root), "train")
    ]
    plan = plan_of(shards.root, streams=1)
    damage(shards.paths()[1], kind)
    report, keys = SkipReport(), Counter[str]()
    for batch in train_batches(
        plan, rank=0, world_size=1, workers=1, first_step=0, last_step=plan.steps_per_epoch
    ):
        assert len(batch.keys) == 8  # every batch keeps its size: no rank waits for another
        report.add(batch.skipped)
        keys.update(batch.keys)
    assert any(reason.startswith(REASONS[kind]) for reason in report.counts), report.counts
    assert any("000001.tar" in line for line in report.lines())
    in_order = [key for batch in evaluation_batches(stretches, 16, 8) for key in batch.keys]
    assert len(in_order) == len(set(in_order)) >= 40
    if kind not in ("cut", "zeros", "text"):
        assert len(in_order) == 59 and sum(report.counts.values()) == 1


def test_nothing_readable_is_an_error(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([20])
    plan = plan_of(shards.root)
    damage(shards.paths()[0], "text")
    with pytest.raises(DataError, match=r"no readable sample in .*000000\.tar"):
        batches_of(plan, last=1)


def test_too_few_samples_name_the_numbers(tiny_shards: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="7 training samples over 4 streams are fewer than one batch of 8"):
        batches_of(plan_of(tiny_shards([7]).root), last=1)


def test_index_and_headers_count_alike(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([5, 6])
    counted = read_shards(str(shards.root), "train")
    assert [shard.samples for shard in counted] == [5, 6]
    assert read_shards(str(shards.root), "train/{000000..000001}.tar") == counted
    rows = [{"name": path.name, "samples": count} for path, count in zip(shards.paths(), [5, 6], strict=True)]
    (shards.root / "train" / "index.json").write_text(json.dumps({"shards": rows}))
    assert read_shards(str(shards.root), "train") == counted
    assert len(fingerprint(counted)) == 8 and fingerprint(counted) != fingerprint(counted[:1])
    shards.paths()[1].unlink()
    with pytest.raises(DataError, match=r"names 1 shards that are missing, first .*000001\.tar"):
        read_shards(str(shards.root), "train")


def test_missing_shards_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.root and data\.train"):
        read_shards(str(tmp_path), "train")


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "I;16", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(tiny_shards: Callable[..., Any], mode: str) -> None:
    from geoclip.data.augment import decode, evaluation_pixels

    file = io.BytesIO()
    picture = Image.new("RGB", (40, 30), (200, 100, 50)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16))
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG")
    pixels = evaluation_pixels(decode(file.getvalue(), 16), 16)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    if mode == "I;16":
        assert abs(int(pixels.mean()) - 40_000 // 257) <= 1  # sixteen bits are scaled, not cut off


def test_a_picture_taken_upright_is_seen_upright() -> None:
    from geoclip.data.augment import decode

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90° clockwise
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert decode(file.getvalue(), 16).size == (20, 40)
