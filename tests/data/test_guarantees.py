"""Guarantees of the data: what a flip and a colour draw are, the seed of the order, and found = used + skipped."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from geoclip.data.batch import PictureDecoder, Sample, Skip, account_of, decode_batch
from geoclip.data.shard_index import SampleRange
from geoclip.data.shards import Shard, assign_to_streams, take_fraction
from geoclip.data.transforms import (
    NO_COLOR,
    Augmentation,
    Preprocessing,
    augmentation_rng,
    color_draw,
    evaluation_pixels_of,
    jitter_colors,
    training_pixels_of,
)


def noise_png(size_px: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_flip_exchanges_left_and_right_of_half_the_pictures() -> None:
    data, preprocessing = noise_png(8), Preprocessing(image_px=8)
    plain = evaluation_pixels_of(data, preprocessing)
    seen = Counter[str]()
    for epoch in range(200):
        pixels = training_pixels_of(data, preprocessing, Augmentation(flip=True), augmentation_rng(0, epoch, "key"))
        seen["plain"] += np.array_equal(pixels, plain)
        seen["flipped"] += np.array_equal(pixels, plain[:, :, ::-1])
    assert seen.total() == 200 and 70 < seen["flipped"] < 130


@pytest.mark.parametrize(("jitter", "gray"), [(0.3, 0.0), (0.0, 0.2), (1.0, 1.0)])
def test_colours_change_with_their_probabilities(jitter: float, gray: float) -> None:
    augmentation, rng = Augmentation(color_jitter=jitter, grayscale=gray), np.random.default_rng(0)
    draw_N5 = np.stack([color_draw(augmentation, rng) for _ in range(1000)])
    jittered_N = (draw_N5[:, :4] != NO_COLOR[:4]).any(axis=1)
    assert jittered_N.mean() == pytest.approx(jitter, abs=0.05) and draw_N5[:, 4].mean() == pytest.approx(
        gray, abs=0.05
    )
    assert np.abs(draw_N5[:, :3] - 1).max() <= 0.4 + 1e-6 and np.abs(draw_N5[:, 3]).max() <= 0.1
    if jitter:
        assert draw_N5[jittered_N, :4].std(axis=0) == pytest.approx([0.231] * 3 + [0.0577], rel=0.1)


@pytest.mark.parametrize("contrast", [0.6, 1.0, 1.4])
def test_brightness_alone_scales_the_mean(contrast: float) -> None:
    """Contrast spreads a picture about its mean after brightness has changed that."""
    gray_HW = torch.randint(60, 140, (16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels_1CHW = gray_HW.expand(1, 3, 16, 16)
    changed = jitter_colors(pixels_1CHW, torch.tensor([[0.6, contrast, 1.0, 0.0, 0.0]])).float()
    assert changed.mean().item() == pytest.approx(0.6 * gray_HW.float().mean().item(), abs=0.3)
    assert changed.std().item() == pytest.approx(0.6 * contrast * pixels_1CHW.float().std().item(), rel=0.02)


def test_the_order_of_the_shards_depends_on_seed_and_epoch() -> None:
    subset = [SampleRange(path=f"{number}.tar", start=0, stop=3) for number in range(20)]
    orders = {
        tuple(span.path for stream in assign_to_streams(subset, 4, seed, epoch) for span in stream)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.19, 2), (0.31, 3), (0.96, 10), (1.0, 10)])
def test_a_fraction_is_rounded_to_the_nearest_count(fraction: float, expected: int) -> None:
    shards = [Shard(path="a.tar", samples=7), Shard(path="b.tar", samples=3)]
    assert sum(map(len, take_fraction(shards, fraction, seed=0))) == expected


def test_found_is_used_and_skipped() -> None:
    skipped = [Skip(shard="a.tar", key="k", reason="no json"), Skip(shard="a.tar", key="l", reason="no picture")]
    account = account_of("data", 6, skipped)
    assert (account.found, account.used, account.skipped.counts.total()) == (8, 6, 2)
    assert account.skipped_share == pytest.approx(0.25)
    assert account_of("data", 0, []).skipped_share == 1


def test_a_broken_picture_keeps_its_row_and_is_counted() -> None:
    samples = [
        Sample(shard="a.tar", key=key, data=data, gps_deg=(float(row), 2.0), epoch=0)
        for row, (key, data) in enumerate((("good", noise_png(8)), ("bad", b"no picture"), ("too", noise_png(8))))
    ]
    batch = decode_batch(samples, PictureDecoder(preprocessing=Preprocessing(image_px=8)))
    assert batch.present_B is not None and batch.present_B.tolist() == [True, False, True]
    assert [(skip.shard, skip.key) for skip in batch.skipped] == [("a.tar", "bad")]
    assert batch.gps_deg_B2.tolist() == [[0, 2], [1, 2], [2, 2]] and not batch.images[1].any()
