"""The Triton kernel of `block_maxima`: products of a tile and their maxima by block, in registers."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

IMAGES = 128  # per program
STEP = 64  # dimensions of the embedding at a time; divides their number
SHARED = 8  # tiles of the gallery that concurrent programs share: they fit the cache


@triton.jit  # type: ignore[untyped-decorator]
def maxima(  # type: ignore[no-untyped-def]
    image, gallery, out, images, rows, blocks,
    WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """One tile of M images and N rows."""
    down, across = tl.cdiv(images, M), tl.cdiv(rows, N)
    program = tl.program_id(0)
    first = (program // (down * GROUP)) * GROUP
    width = min(across - first, GROUP)
    n = first + (program % (down * GROUP)) % width
    m = (program % (down * GROUP)) // width
    row_m = m * M + tl.arange(0, M)
    row_n = n * N + tl.arange(0, N)
    column = tl.arange(0, K)
    inside = tl.where(row_m < images, row_m, 0)
    image_tile = image + inside[:, None] * WIDTH + column[None, :]
    gallery_tile = gallery + row_n.to(tl.int64)[:, None] * WIDTH + column[None, :]
    score = tl.zeros((M, N), dtype=tl.float32)
    for start in range(0, WIDTH, K):
        score = tl.dot(tl.load(image_tile + start), tl.load(gallery_tile + start).T, score)
    highest = tl.max(tl.reshape(score, (M, N // SIZE, SIZE)), axis=2)
    block = n * (N // SIZE) + tl.arange(0, N // SIZE)
    into = out + row_m.to(tl.int64)[:, None] * blocks + block[None, :]
    tl.store(into, highest, mask=row_m[:, None] < images)


def launch(image_ND: Tensor, gallery_GD: Tensor, maximum_NP: Tensor, block: int, tile: int) -> None:
    """Fill (N, P) with the maxima of (N, D) images and (G, D) rows, G a multiple of `tile`; all contiguous."""
    kernel: Any = maxima
    grid = (triton.cdiv(len(image_ND), IMAGES) * (len(gallery_GD) // tile),)
    kernel[grid](
        image_ND, gallery_GD, maximum_NP, len(image_ND), len(gallery_GD), maximum_NP.shape[1],
        image_ND.shape[1], IMAGES, tile, STEP, SHARED, block, num_warps=8, num_stages=3,
    )  # fmt: skip
