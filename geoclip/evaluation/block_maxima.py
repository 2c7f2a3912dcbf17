"""The highest cosine similarity of each block of gallery rows, for thousands of images at once.

The scores of 4,536 images and ten million locations are 90 GB; writing and reading them takes a GPU longer than the
products. A Triton kernel takes the maximum while a tile of scores is still in registers.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

BLOCK = 64  # neighbouring rows of the gallery
TILE = 256  # rows that one program of the kernel takes
CHUNK = 8192  # rows at a time without the kernel


def block_maxima(image_ND: Tensor, gallery_GD: Tensor) -> Tensor:
    """(N, P) float32 the highest product of every image with the rows of each block, over whole tiles of the gallery.

    Args:
        image_ND: (N, D) float16.
        gallery_GD: (G, D) float16 on the same device, contiguous.

    Returns:
        Of block p the maximum over rows 64 p … 64 p + 63; P = 4 · (G // 256). The rows after the last whole tile are
        in no block.
    """
    whole = len(gallery_GD) // TILE * TILE
    maximum_NP = image_ND.new_empty((len(image_ND), whole // BLOCK), dtype=torch.float32)
    if whole and len(image_ND) and image_ND.is_cuda and image_ND.shape[1] % 64 == 0 and find_spec("triton"):
        from geoclip.evaluation.block_maxima_kernel import launch  # Triton is part of PyTorch's CUDA builds alone

        launch(image_ND.contiguous(), gallery_GD[:whole].contiguous(), maximum_NP, BLOCK, TILE)
        return maximum_NP
    for first in range(0, whole, CHUNK):
        score_NC = (image_ND @ gallery_GD[first : min(first + CHUNK, whole)].T).float()
        blocks = slice(first // BLOCK, (first + score_NC.shape[1]) // BLOCK)
        torch.amax(score_NC.unflatten(1, (-1, BLOCK)), dim=2, out=maximum_NP[:, blocks])
    return maximum_NP
