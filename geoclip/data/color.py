"""Colour augmentation of a whole batch, on whatever device it is: one affine map of red, green and blue per picture.

In luma and chroma (YIQ) brightness scales all three, contrast scales them about the picture's mean luma, saturation
scales the chroma and hue turns it; grayscale takes it away. All this is one 3x4 matrix and one pass over the pixels,
and its order does not matter. Against torchvision's ColorJitter, which the released code uses, two things differ:
values are clipped to [0, 255] once, at the end, and hue turns chroma in YIQ instead of the hexagon of HSV.

Source: NVIDIA DALI, `color_twist`, which composes the same operations into one matrix; YIQ of the FCC's NTSC, 1953.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey
RGB_TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def jitter_colors(pixels_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Change every picture's colours by its own draw.

    Args:
        pixels_BCHW: (B, 3, H, W) uint8.
        draws_B5: factors of brightness, contrast and saturation, hue as a share of the circle, 1 for grayscale; see
            `augment.color_draw`.

    Returns:
        (B, 3, H, W) uint8.
    """
    brightness_B, contrast_B, saturation_B, hue_B, gray_B = draws_B5.float().unbind(dim=1)
    to_yiq_33 = torch.tensor(RGB_TO_YIQ, device=draws_B5.device)
    chroma_B, angle_B = saturation_B * (1 - gray_B), 2 * torch.pi * hue_B
    change_B33 = torch.zeros(len(draws_B5), 3, 3, device=draws_B5.device)
    change_B33[:, 0, 0] = 1
    change_B33[:, 1, 1] = change_B33[:, 2, 2] = chroma_B * angle_B.cos()
    change_B33[:, 2, 1] = chroma_B * angle_B.sin()
    change_B33[:, 1, 2] = -change_B33[:, 2, 1]
    matrix_B33 = (brightness_B * contrast_B)[:, None, None] * (
        torch.linalg.inv(to_yiq_33) @ change_B33 @ to_yiq_33
    )
    values_BCP = pixels_BCHW.flatten(2).float()
    mean_luma_B = values_BCP.mean(dim=2) @ to_yiq_33[0]
    shift_B11 = (brightness_B * (1 - contrast_B) * mean_luma_B)[:, None, None]
    changed_BCP = torch.baddbmm(shift_B11, matrix_B33, values_BCP)
    return changed_BCP.clamp_(0, 255).round_().to(torch.uint8).view_as(pixels_BCHW)
