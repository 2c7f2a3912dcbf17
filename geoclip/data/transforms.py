"""From the bytes of a picture to the pixels that an encoder takes.

Evaluation: decode, resize and crop, as the encoder's own preprocessing, with 1, 5 or 10 views. Training: random crop
and flip of each picture on the CPU; colour jitter of a batch on the device. The encoder normalises on the device.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoclip.data.pictures import MAX_PIXELS, decode, load_upright, open_picture, orientation_of

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
FITS = ("crop", "squash")
VIEWS = {"single": 1, "five_crop": 5, "ten_crop": 10}
WIDER = 256 / 224  # ratio of the resized picture to its five or ten crops
NO_COLOR = np.array([1, 1, 1, 0, 0], dtype=np.float32)  # see `color_draw`
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey
RGB_TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
PICTURES_AT_ONCE = 32  # converted to float32 at a time, for the processor's caches and the device's memory

Box = tuple[float, float, float, float]


@dataclass(kw_only=True, slots=True, frozen=True)
class Preprocessing:
    """From a decoded picture to uint8 pixels; CLIP's by default. The encoder normalises.

    Raises:
        ValueError: unknown fit, interpolation or tta.
    """

    image_px: int
    resize_px: int | None = None  # fit=crop: the shorter side before the central crop; None: image_px
    fit: str = "crop"  # or squash: resize to a square, which changes the aspect ratio
    interpolation: str = "bicubic"  # or bilinear
    tta: str = "single"  # or five_crop, ten_crop
    max_pixels: int = MAX_PIXELS  # see `open_picture`; does not change smaller pictures

    def __post_init__(self) -> None:
        for key, choices in (("fit", FITS), ("interpolation", RESAMPLING), ("tta", VIEWS)):
            if getattr(self, key) not in choices:
                raise ValueError(f"{key}={getattr(self, key)!r} must be one of {', '.join(choices)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, image_px, image_px); with test-time augmentation (views, 3, image_px, image_px)."""
        one = (3, self.image_px, self.image_px)
        return one if self.tta == "single" else (VIEWS[self.tta], *one)


def evaluation_pixels_of(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode at full size, as the encoder's own preprocessing, then `evaluation_pixels`; raises as both."""
    return evaluation_pixels(decode(data, max_pixels=preprocessing.max_pixels), preprocessing)


def evaluation_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels of an RGB picture, of `preprocessing.shape`.

    Raises:
        ValueError: too long and thin to be resized in memory.

    Source: single view: the image processors of `transformers`; crops at corners and centre, and their mirror images:
    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012.
    """
    size_px, resampling = preprocessing.image_px, RESAMPLING[preprocessing.interpolation]
    if preprocessing.tta != "single":
        views = _five_crops(_resized(image, round(WIDER * size_px), resampling), size_px)
        if preprocessing.tta == "ten_crop":
            views += [view[:, :, ::-1] for view in views]
        return np.stack(views)
    if preprocessing.fit == "squash":
        return _channels_first(image.resize((size_px, size_px), resampling))
    resized = _resized(image, preprocessing.resize_px or size_px, resampling)
    return _channels_first(_cut(resized, *_middle(resized, size_px), size_px))


def _resized(image: Image.Image, shorter_px: int, resampling: Image.Resampling) -> Image.Image:
    """The picture resized to this shorter side; the longer one is rounded down, as in transformers."""
    short, long = sorted(image.size)
    longer_px = int(shorter_px * long / short)
    if shorter_px * longer_px > MAX_PIXELS:
        raise ValueError("too long and thin")
    upright = image.width <= image.height
    return image.resize((shorter_px, longer_px) if upright else (longer_px, shorter_px), resampling)


def _five_crops(image: Image.Image, size_px: int) -> list[NDArray[np.uint8]]:
    """Crops at the four corners, row by row, and at the centre."""
    right, bottom = image.width - size_px, image.height - size_px
    starts = [(0, 0), (right, 0), (0, bottom), (right, bottom), _middle(image, size_px)]
    return [_channels_first(_cut(image, *start, size_px)) for start in starts]


def _middle(image: Image.Image, size_px: int) -> tuple[int, int]:
    """Left and top of the central crop."""
    return (image.width - size_px) // 2, (image.height - size_px) // 2


def _cut(image: Image.Image, left: int, top: int, size_px: int) -> Image.Image:
    return image.crop((left, top, left + size_px, top + size_px))


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)


@dataclass(kw_only=True, slots=True, frozen=True)
class Augmentation:
    """The released code's training transform, each part a number: crop, flip, colour jitter, grayscale."""

    crop_scale_min: float = 1.0  # smallest share of the area; 1: central crop
    crop_ratio: float = 1.0
    flip: bool = False
    color_jitter: float = 0.0
    grayscale: float = 0.0

    @property
    def changes_color(self) -> bool:
        """Whether colours change."""
        return self.color_jitter > 0 or self.grayscale > 0

    @property
    def is_identity(self) -> bool:
        """Whether training and evaluation see the same pixels."""
        return self == Augmentation(crop_ratio=self.crop_ratio)


def training_pixels_of(
    data: bytes, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(3, image_px, image_px): random resized crop and flip; see `jitter_colors` for colours.

    Without a random crop, the pixels of evaluation. Otherwise the crop is drawn before the picture is decoded, so that
    a JPEG is decoded at the scale that the crop needs. Bilinear, as torchvision's crop in the released code.

    Raises:
        ValueError: as `pictures.decode`.
    """
    size_px = preprocessing.image_px
    if augmentation.crop_scale_min < 1:
        image = open_picture(data, preprocessing.max_pixels)
        turned = orientation_of(image) > 4
        width, height = image.size[::-1] if turned else image.size
        left, top, right, bottom = _crop_box((width, height), augmentation, rng)
        shrink = max(1, int(min(right - left, bottom - top) / size_px))
        image = load_upright(image, (image.width // shrink or 1, image.height // shrink or 1))
        across, down = image.width / width, image.height / height
        first = min(round(left * across), image.width - 1), min(round(top * down), image.height - 1)
        last = max(round(right * across), first[0] + 1), max(round(bottom * down), first[1] + 1)
        pixels = _shrunk(image.crop((*first, *last)), size_px)
    else:
        pixels = evaluation_pixels_of(data, preprocessing)
    if augmentation.flip and rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    return pixels


def color_draw(augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """The random numbers of one picture's colours, for `jitter_colors`.

    Returns:
        (5,) factors of brightness, contrast and saturation in [0.6, 1.4], hue in ±0.1 of the circle, 1 for grayscale;
        by default `NO_COLOR`.

    Source: the released code's ColorJitter(.4, .4, .4, .1) and RandomGrayscale.
    """
    draw = NO_COLOR.copy()
    if rng.random() < augmentation.color_jitter:
        draw[:3] = rng.uniform(0.6, 1.4, size=3)
        draw[3] = rng.uniform(-0.1, 0.1)
    draw[4] = rng.random() < augmentation.grayscale
    return draw


def augmentation_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of one picture in one epoch: independent of the process and the order of decoding."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _shrunk(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """(3, size, size), bilinear with antialiasing: the result of Pillow's resize, by PyTorch's faster code."""
    pixels_HW3 = torch.from_numpy(np.array(image))
    shrunk = F.interpolate(pixels_HW3.permute(2, 0, 1)[None], size=(size_px, size_px), mode="bilinear", antialias=True)
    pixels: NDArray[np.uint8] = shrunk[0].numpy()
    return pixels


def _crop_box(size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator) -> Box:
    """A box of random area and aspect ratio; the central square after ten failures, as in torchvision."""
    width, height = size
    log_ratio = math.log(augmentation.crop_ratio)
    for _ in range(10):
        area = width * height * rng.uniform(augmentation.crop_scale_min, 1.0)
        aspect = math.exp(rng.uniform(-log_ratio, log_ratio))
        crop_width, crop_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_width <= width and crop_height <= height:
            left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
            return left, top, left + crop_width, top + crop_height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def jitter_colors(pixels_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Change each picture's colours by its own draw: one affine map of red, green and blue per picture.

    In luma and chroma (YIQ) brightness scales all three, contrast scales them about the picture's mean luma, saturation
    scales the chroma, hue rotates it and grayscale removes it: one 3x4 matrix, in any order. Two differences to
    torchvision's ColorJitter, which the released code uses: values are clipped to [0, 255] once, at the end, and hue
    rotates chroma in YIQ instead of the hexagon of HSV.

    Args:
        pixels_BCHW: (B, 3, H, W) uint8.
        draws_B5: see `color_draw`; on the same device.

    Returns:
        (B, 3, H, W) uint8. The host does not wait for the device.

    Source: NVIDIA DALI, ColorTwist (dali/operators/image/color/color_twist.h), with contrast about the mean luma, as in
    torchvision; YIQ of the FCC's NTSC, 1953.
    """
    brightness_B, contrast_B, saturation_B, hue_B, gray_B = draws_B5.float().unbind(dim=1)
    luma_3, basis_3x9 = _basis(draws_B5.device)
    chroma_B, angle_B = saturation_B * (1 - gray_B), 2 * torch.pi * hue_B
    shares_B3 = torch.stack((torch.ones_like(hue_B), chroma_B * angle_B.cos(), chroma_B * angle_B.sin()), dim=1)
    matrix_B33 = (brightness_B * contrast_B)[:, None, None] * (shares_B3 @ basis_3x9).view(-1, 3, 3)
    pivot_B = brightness_B * (1 - contrast_B)
    changed_BCHW = torch.empty_like(pixels_BCHW, memory_format=torch.contiguous_format)
    for start in range(0, len(pixels_BCHW), PICTURES_AT_ONCE):
        part = slice(start, start + PICTURES_AT_ONCE)
        values_BCP = pixels_BCHW[part].flatten(2).float()
        shift_B11 = (pivot_B[part] * (values_BCP.mean(dim=2) @ luma_3))[:, None, None]
        changed_BCP = torch.baddbmm(shift_B11, matrix_B33[part], values_BCP).clamp_(0, 255).round_()
        changed_BCHW[part].flatten(2).copy_(changed_BCP)
    return changed_BCHW


@functools.cache
def _basis(device: torch.device) -> tuple[Tensor, Tensor]:
    """Luma's weights (3,), and (3, 9) as maps of RGB: luma only, chroma only, chroma rotated by 90°."""
    to_yiq_33 = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    maps_333 = torch.zeros(3, 3, 3, dtype=torch.float64)
    maps_333[0, 0, 0] = maps_333[1, 1, 1] = maps_333[1, 2, 2] = maps_333[2, 2, 1] = 1
    maps_333[2, 1, 2] = -1
    basis_3x9 = (torch.linalg.inv(to_yiq_33) @ maps_333 @ to_yiq_33).flatten(1)
    return to_yiq_33[0].to(device, torch.float32), basis_3x9.to(device, torch.float32)
