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
    """(3, 224, 224) float32: whole decode, random resized crop, flip, colour jitter, grayscale, normalisation."""
    image = Image.open(path).convert("RGB")
    image = _random_resized_crop(image, rng)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.8:
        image = _color_jitter(image, rng)
    if rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1)
    return (pixels.contiguous().float() / 255).sub_(MEAN).div_(STD)


def _random_resized_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
            cropped = image.crop((left, top, left + across, top + down))
            return cropped.resize((224, 224), Image.Resampling.BILINEAR)
    return image.resize((224, 224), Image.Resampling.BILINEAR)


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
