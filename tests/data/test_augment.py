"""From bytes to pixels: scaled while decoded, upright, no exception but ValueError; colours as by Pillow."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
import random
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from geoclip.data.pictures import MAX_PIXELS, open_picture, quiet_pillow
from geoclip.data.transforms import (
    LUMA,
    NO_COLOR,
    PICTURES_AT_ONCE,
    Augmentation,
    Preprocessing,
    augmentation_rng,
    color_draw,
    evaluation_pixels_of,
    jitter_colors,
    training_pixels_of,
)

CROP = Augmentation(crop_scale_min=0.08, crop_ratio=4 / 3, flip=True)


def square(size_px: int) -> Preprocessing:
    return Preprocessing(image_px=size_px)


def scene(width: int, height: int) -> Image.Image:
    """Smooth, with a different colour at every position, so that a wrong crop or rotation is visible."""
    down, across = np.mgrid[0 : 1 : complex(0, height), 0 : 1 : complex(0, width)]
    pixels = np.stack((255 * across, 255 * down, 127 + 120 * np.sin(9 * across + 5 * down)), axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def as_bytes(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}) | how)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "I;16", "1", "LA", "PA", "F"])
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    picture = Image.new("RGB", (40, 30), (200, 100, 50)).convert("L" if mode in ("I;16", "PA") else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16))
    if mode == "PA":
        picture = picture.convert("P")
        picture.info["transparency"] = 3
    data = as_bytes(picture, {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG"))
    pixels = evaluation_pixels_of(data, square(16))
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    assert training_pixels_of(data, square(16), CROP, np.random.default_rng(0)).shape == (3, 16, 16)
    if mode == "I;16":
        assert abs(int(pixels.mean()) - 40_000 // 257) <= 1  # 16 bits are scaled, not clipped


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_picture_becomes_upright(orientation: int) -> None:
    upright = scene(96, 64)
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # by the camera
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(Image.Transpose(step))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = as_bytes(stored, exif=exif)
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (96, 64)
    expected = evaluation_pixels_of(as_bytes(upright), square(32)).astype(int)
    assert abs(evaluation_pixels_of(data, square(32)).astype(int) - expected).mean() < 3
    crops = [
        training_pixels_of(which, square(32), CROP, np.random.default_rng(5)) for which in (data, as_bytes(upright))
    ]
    assert abs(crops[0].astype(int) - crops[1].astype(int)).mean() < 3


@pytest.mark.parametrize(("kind", "how"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_an_animation_shows_its_first_frame(kind: str, how: dict[str, Any]) -> None:
    red, blue = (Image.new("RGB", (20, 20), color) for color in ((255, 0, 0), (0, 0, 255)))
    data = as_bytes(red, kind, save_all=True, append_images=[blue], **how)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert evaluation_pixels_of(data, square(8))[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore:Palette images")
def test_a_palette_with_transparency_keeps_its_colors() -> None:
    picture = Image.new("P", (20, 20))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (0, 0, 20, 20))
    data = as_bytes(picture, "PNG", transparency=b"\xff\x80")
    assert evaluation_pixels_of(data, square(8))[:, 4, 4].tolist() == [200, 100, 50]


BROKEN = {
    "empty picture": b"",
    "unreadable picture (UnidentifiedImageError)": b"<html><body>This photo is no longer available</body></html>",
    "truncated picture": as_bytes(scene(300, 200))[:5000],
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_is_no_picture_is_named_by_its_reason(reason: str) -> None:
    for read in (
        lambda data: evaluation_pixels_of(data, square(32)),
        lambda data: training_pixels_of(data, square(32), CROP, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
            read(BROKEN[reason])


def test_no_program_is_started_for_a_picture() -> None:
    """Pillow opens EPS with Ghostscript: not for what the Web sent."""
    with pytest.raises(ValueError, match="UnidentifiedImageError"):
        open_picture(as_bytes(scene(20, 20), "EPS"))


def test_a_picture_from_two_lenses_is_its_first() -> None:
    """MPO, which some cameras and phones write into files called .jpg."""
    red, blue = (Image.new("RGB", (20, 20), color) for color in ((255, 0, 0), (0, 0, 255)))
    pixels = evaluation_pixels_of(as_bytes(red, "MPO", save_all=True, append_images=[blue]), square(8))
    assert pixels[0].min() > 200 and pixels[2].max() < 50


def test_pillow_logs_nothing_about_single_pictures(caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    jpeg = as_bytes(scene(20, 20), exif=exif)
    at = jpeg.index(b"Exif") + 14
    bad_exif = jpeg[:at] + b"\xff" * 12 + jpeg[at + 12 :]
    tiff = as_bytes(scene(8, 8), "TIFF")
    at = tiff.index(struct.pack("<HHI", 277, 3, 1)) + 8
    many_samples = tiff[:at] + struct.pack("<H", 200) + tiff[at + 2 :]

    def messages() -> int:
        caplog.clear()
        with contextlib.suppress(ValueError):
            evaluation_pixels_of(many_samples, square(8))
        assert evaluation_pixels_of(bad_exif, square(8)).shape == (3, 8, 8)
        return len(caught) + len(caplog.records)

    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.ERROR, logger="PIL"):
        warnings.simplefilter("always")
        assert messages() == 2
        caught.clear()
        quiet_pillow()
        assert messages() == 0


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("pixels", [MAX_PIXELS + 10_000_000, 400_000_000])
def test_a_decompression_bomb_is_refused_by_its_header(pixels: int) -> None:
    data = as_bytes(Image.new("1", (1, 1)), "PNG")
    header = b"IHDR" + math.isqrt(pixels).to_bytes(4, "big") * 2 + data[24:29]
    bomb = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    with pytest.raises(ValueError, match=f"max_pixels={MAX_PIXELS}"):
        open_picture(bomb)


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (3000, 2), (1, 1), (17, 16)])
def test_thin_pictures_fill_the_square(size: tuple[int, int]) -> None:
    data = as_bytes(scene(*size), "PNG")
    assert evaluation_pixels_of(data, square(16)).shape == (3, 16, 16)
    assert training_pixels_of(data, square(16), CROP, np.random.default_rng(1)).shape == (3, 16, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_corrupt_bytes_raise_nothing_but_value_errors(kind: str) -> None:
    good, rng = as_bytes(scene(60, 40), kind), random.Random(kind)
    broken = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data))] if rng.random() < 0.3 else data
        try:
            assert evaluation_pixels_of(bytes(data), square(16)).shape == (3, 16, 16)
            assert training_pixels_of(bytes(data), square(16), CROP, np.random.default_rng(0)).shape == (3, 16, 16)
        except ValueError:
            broken += 1
    assert broken > 10


def test_a_crop_from_a_scaled_jpeg_equals_that_at_full_size() -> None:
    picture = scene(1024, 768)
    jpeg, png = as_bytes(picture), as_bytes(picture, "PNG")
    for seed in range(12):
        scaled, full = (
            training_pixels_of(data, square(64), CROP, np.random.default_rng(seed)).astype(int) for data in (jpeg, png)
        )
        assert abs(scaled - full).mean() < 2, seed


def test_a_large_crop_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, int]] = []
    crop = Image.Image.crop

    def seen(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        decoded.append(image.size)
        return crop(image, box)

    monkeypatch.setattr(Image.Image, "crop", seen)
    data = as_bytes(scene(2048, 1536))
    training_pixels_of(data, square(224), Augmentation(crop_scale_min=0.99), np.random.default_rng(0))
    assert decoded == [(512, 384)]


def test_crops_cover_the_area_and_flips_are_fair() -> None:
    picture, flipped, left = as_bytes(scene(200, 200)), 0, []
    for seed in range(200):
        pixels = training_pixels_of(picture, square(16), CROP, np.random.default_rng(seed)).astype(int)
        flipped += pixels[0, :, 0].mean() > pixels[0, :, -1].mean()
        left.append(pixels[0].min())
    assert 70 < flipped < 130 and min(left) < 10 and max(left) > 120


def test_an_augmentation_is_the_same_again_and_new_in_every_epoch() -> None:
    both = Augmentation(crop_scale_min=0.08, color_jitter=0.8, grayscale=0.2)

    def draw(seed: int, epoch: int, key: str) -> list[float]:
        return [float(value) for value in color_draw(both, augmentation_rng(seed, epoch, key))]

    assert draw(0, 1, "a") == draw(0, 1, "a")
    draws = [draw(0, epoch, key) for epoch in range(30) for key in "abcdefgh"]
    assert len({tuple(one) for one in draws}) > 150
    plain = sum(one[:4] == NO_COLOR[:4].tolist() for one in draws)
    assert 20 < plain < 80 and 20 < sum(one[4] for one in draws) < 80
    changed = np.array([one for one in draws if one[:4] != NO_COLOR[:4].tolist()])
    assert changed[:, :3].min() >= 0.6 and changed[:, :3].max() <= 1.4 and abs(changed[:, 3]).max() <= 0.1


def pictures(count: int = 3) -> Tensor:
    """Middle values, so that nothing is clipped."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(90, 150, (count, 3, 20, 24), generator=generator, dtype=torch.uint8)


def draw(**changes: float) -> Tensor:
    names = ("brightness", "contrast", "saturation", "hue", "gray")
    values = NO_COLOR.copy()
    for name, value in changes.items():
        values[names.index(name)] = value
    return torch.from_numpy(values)


def pillow(pixels_CHW: Tensor, enhance: type, factor: float) -> Tensor:
    image = Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(enhance(image).enhance(factor))).permute(2, 0, 1)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.4])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_each_operation_is_pillows(name: str, enhance: type, factor: float) -> None:
    pixels = pictures(1)
    changed = jitter_colors(pixels, draw(**{name: factor})[None])[0].int()
    expected = pillow(pixels[0], enhance, factor).int()
    assert (changed - expected).abs().max() <= 1
    assert (changed - pixels[0].int()).abs().max() > 1


def test_all_of_them_are_pillows_in_any_order() -> None:
    pixels = pictures(1)
    factors = {"brightness": 1.1, "contrast": 0.8, "saturation": 1.3}
    changed = jitter_colors(pixels, draw(**factors)[None])[0]
    kinds = dict(zip(factors, (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), strict=True))
    for order in itertools.permutations(factors):
        expected = pixels[0]
        for name in order:
            expected = pillow(expected, kinds[name], factors[name])
        assert (changed.int() - expected.int()).abs().max() <= 3  # Pillow rounds three times


def test_grayscale_is_pillows() -> None:
    pixels = pictures(1)
    gray = np.array(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).convert("L"))
    changed = jitter_colors(pixels, draw(gray=1)[None])[0]
    assert (changed.int() - torch.from_numpy(gray).int()).abs().max() <= 1


def test_hue_keeps_the_luma_and_is_periodic() -> None:
    pixels = pictures(1)
    turned = jitter_colors(pixels, draw(hue=0.1)[None])
    luma = torch.tensor(LUMA).view(3, 1, 1)
    assert ((turned[0].float() - pixels[0].float()) * luma).sum(dim=0).abs().max() < 1.5
    assert (turned.int() - pixels.int()).abs().max() > 5
    assert torch.equal(jitter_colors(pixels, draw(hue=1.0)[None]), pixels)
    back = jitter_colors(turned, draw(hue=-0.1)[None])
    assert (back.int() - pixels.int()).abs().max() <= 2


def test_no_draw_changes_nothing_and_no_picture_another() -> None:
    pixels = pictures(4)
    draws = torch.stack([draw(), draw(contrast=0.6, hue=0.05), draw(), draw(gray=1)])
    together = jitter_colors(pixels, draws)
    assert torch.equal(together[0], pixels[0]) and torch.equal(together[2], pixels[2])
    for row in range(4):
        alone = jitter_colors(pixels[row : row + 1], draws[row : row + 1])[0]
        assert (alone.int() - together[row].int()).abs().max() <= 1


def test_every_picture_of_a_large_batch_gets_its_own_draw() -> None:
    count = 2 * PICTURES_AT_ONCE + 3
    pixels = pictures(1).expand(count, -1, -1, -1)
    draws = torch.stack([draw(brightness=0.6 + 0.8 * row / count) for row in range(count)])
    mean_B = jitter_colors(pixels, draws).float().mean(dim=(1, 2, 3))
    expected_B = draws[:, 0] * pixels[0].float().mean()
    assert mean_B.tolist() == pytest.approx(expected_B.tolist(), abs=0.5)
    assert jitter_colors(pixels[:0], draws[:0]).shape == pixels[:0].shape


def test_values_are_clipped_not_wrapped() -> None:
    bright = torch.full((1, 3, 4, 4), 250, dtype=torch.uint8)
    assert (jitter_colors(bright, draw(brightness=1.4)[None]) == 255).all()
