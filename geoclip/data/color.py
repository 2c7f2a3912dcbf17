"""Colour augmentation of a whole batch, on whatever device it is: one affine map of red, green and blue per picture.

In luma and chroma (YIQ) brightness scales all three, contrast scales them about the picture's mean luma, saturation
scales the chroma and hue turns it; grayscale takes it away. All this is one 3x4 matrix and one pass over the pixels,
and its order does not matter. Against torchvision's ColorJitter, which the released code uses, two things differ:
values are clipped to [0, 255] once, at the end, and hue turns chroma in YIQ instead of the hexagon of HSV.

Source: NVIDIA DALI, ColorTwist (dali/operators/image/color/color_twist.h), which composes the same operations into one
matrix, with contrast about the middle of the range where torchvision takes the mean luma; YIQ of the FCC's NTSC, 1953.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey
RGB_TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
PICTURES_AT_ONCE = 32  # as float32 they stay near the processor's caches, and few on the device


def jitter_colors(pixels_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Change every picture's colours by its own draw.

    Args:
        pixels_BCHW: (B, 3, H, W) uint8.
        draws_B5: factors of brightness, contrast and saturation, hue as a share of the circle, 1 for grayscale; see
            `augment.color_draw`. On the same device.

    Returns:
        (B, 3, H, W) uint8. The device is never waited for.
    """
    brightness_B, contrast_B, saturation_B, hue_B, gray_B = draws_B5.float().unbind(dim=1)
    luma_3, basis_3x9 = _basis(draws_B5.device)
    chroma_B, angle_B = saturation_B * (1 - gray_B), 2 * torch.pi * hue_B
    shares_B3 = torch.stack(
        (torch.ones_like(hue_B), chroma_B * angle_B.cos(), chroma_B * angle_B.sin()), dim=1
    )
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
    """Luma's weights (3,), and (3, 9) as maps of RGB: luma kept, chroma kept, chroma turned by a quarter."""
    to_yiq_33 = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    maps_333 = torch.zeros(3, 3, 3, dtype=torch.float64)
    maps_333[0, 0, 0] = maps_333[1, 1, 1] = maps_333[1, 2, 2] = maps_333[2, 2, 1] = 1
    maps_333[2, 1, 2] = -1
    basis_3x9 = (torch.linalg.inv(to_yiq_33) @ maps_333 @ to_yiq_33).flatten(1)
    return to_yiq_33[0].to(device, torch.float32), basis_3x9.to(device, torch.float32)
