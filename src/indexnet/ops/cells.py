"""Maps and their 2x2 cells: packing, unpacking, and sizes that are not even."""

from __future__ import annotations

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


def pack_cells(x: Tensor) -> Tensor:
    """Gather the four positions of each 2x2 cell: a space-to-depth with the position before the channel.

    Args:
        x: (N, C, 2h, 2w).

    Returns:
        (N, 4, C, h, w), positions in the order top-left, top-right, bottom-left, bottom-right.
    """
    n, c, height, width = x.shape
    cells = x.reshape(n, c, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return cells.reshape(n, 4, c, height // 2, width // 2)


def unpack_cells(packed: Tensor) -> Tensor:
    """Put packed positions back to full resolution, the inverse of :func:`pack_cells`.

    Args:
        packed: (N, 4, C, h, w).

    Returns:
        (N, C, 2h, 2w).
    """
    n, _, c, h, w = packed.shape
    return packed.reshape(n, 2, 2, c, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c, 2 * h, 2 * w)
