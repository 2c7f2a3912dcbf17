"""Colour by one matrix, against Pillow operation by operation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from geoclip.data.transforms import LUMA, NO_COLOR, PICTURES_AT_ONCE, jitter_colors


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
