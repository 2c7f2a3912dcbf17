"""The released loader's way from a photograph's file to a normalised tensor, operation by operation.

The released code (geoclip 1.3.0, train/dataloader.py) calls torchvision, which on PIL pictures calls Pillow, as here;
torchvision itself has no CPU build for every PyTorch, so its calls are written out.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


def released_sample(path: Path, rng: np.random.Generator) -> Tensor:
    """(3, 224, 224) float32: full decode, random resized crop, flip, colour jitter, grayscale, normalisation."""
    with Image.open(path) as source:
        image = source.convert("RGB")
    left, top, right, bottom = random_box(image.size, rng)
    image = image.crop((left, top, right, bottom)).resize((224, 224), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.8:
        image = _color_jitter(image, rng)
    if rng.random() < 0.2:
        image = Image.fromarray(np.dstack([np.array(image.convert("L"))] * 3))
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1)
    return (pixels.float() / 255).clone().sub_(MEAN).div_(STD)


def random_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """RandomResizedCrop's box: 8 % to 100 % of the area, sides 3 : 4 to 4 : 3; the full picture if none fits."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
            return left, top, left + across, top + down
    return 0, 0, width, height


def _color_jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for step in rng.permutation(4):
        if step == 3:
            hue, saturation, value = image.convert("HSV").split()
            turned = np.array(hue, dtype=np.uint8)
            turned += np.uint8(int(rng.uniform(-0.1, 0.1) * 255) % 256)
            image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
        else:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhance(image).enhance(rng.uniform(0.6, 1.4))
    return image
