"""Maps and their 2x2 cells: packing, unpacking, and sizes that are not even."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_to_even(x: Tensor) -> Tensor:
    """Repeat the last row and column where the height or width is odd.

    Zeros would win over negative features in a maximum and darken an average; a repeated value does neither.

    Args:
        x: (N, C, H, W), any floating dtype, H and W at least 1.

    Returns:
        (N, C, 2*ceil(H/2), 2*ceil(W/2)); ``x`` itself where both sizes are even.
    """
    height, width = x.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return x
    return F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")


def crop_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut rows and columns at the bottom and right, the inverse of :func:`pad_to_even`.

    Args:
        x: (N, C, H, W).
        size: wanted (height, width), at most (H, W).

    Returns:
        (N, C, *size), a view of ``x``; ``x`` itself where it has that size.
    """
    height, width = size
    if x.shape[-2] == height and x.shape[-1] == width:
        return x
    return x[..., :height, :width]


def is_channels_last(x: Tensor) -> bool:
    """Whether a map (N, C, H, W) lies in memory channels-last and not channels-first."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def pack_cells(x: Tensor) -> Tensor:
    """Gather the four positions of each 2x2 cell: space-to-depth with the position in a dimension of its own.

    Args:
        x: (N, C, 2h, 2w).

    Returns:
        (N, C, 4, h, w), positions in the order top-left, top-right, bottom-left, bottom-right.
    """
    n, c, height, width = x.shape
    h, w = height // 2, width // 2
    return x.reshape(n, c, h, 2, w, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c, 4, h, w)


def unpack_cells(packed: Tensor, channels_last: bool = False) -> Tensor:
    """Put packed positions back to full resolution, the inverse of :func:`pack_cells`.

    Args:
        packed: (N, C, 4, h, w).
        channels_last: memory format of the result; either way it is written once.

    Returns:
        (N, C, 2h, 2w).
    """
    n, c, _, h, w = packed.shape
    cells = packed.reshape(n, c, 2, 2, h, w)
    if channels_last:
        return cells.permute(0, 4, 2, 5, 3, 1).reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
    return cells.permute(0, 1, 4, 2, 5, 3).reshape(n, c, 2 * h, 2 * w)
