"""Holistic max index: max pooling whose index all channels share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.ops.cells import is_channels_last


def holistic_max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool every channel at the position where the maximum over channels is largest in the 2x2 cell.

    The index is the argmax over a cell of max_c x[:, c]; all channels take their own value at that one position.
    Ties go to the first position in reading order. A last row or column without partner forms a smaller cell.

    Args:
        x: (N, C, H, W), floating point, without NaN.

    Returns:
        Pooled map (N, C, h, w), in the memory format of ``x``, and int64 flat positions in the H*W plane, (N, 1, h, w),
        where h = ceil(H/2) and w = ceil(W/2).
    """
    squeezed = x.detach().amax(1, keepdim=True)
    _, indices = F.max_pool2d(squeezed, 2, ceil_mode=True, return_indices=True)
    n, c = x.shape[:2]
    flat = indices.reshape(n, 1, -1).expand(-1, c, -1)
    pooled = x.reshape(n, c, -1).gather(2, flat).reshape(n, c, *indices.shape[-2:])
    if is_channels_last(x):
        pooled = pooled.contiguous(memory_format=torch.channels_last)
    return pooled, indices


def holistic_max_unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Put each value back at its holistic index and zeros elsewhere.

    Args:
        x: (N, C, h, w).
        indices: int64 flat positions, (N, 1, h, w), from :func:`holistic_max_pool`.
        size: (H, W) of the map that was pooled.

    Returns:
        (N, C, H, W), in the memory format of ``x``.
    """
    n, c = x.shape[:2]
    height, width = size
    flat = indices.reshape(n, 1, -1).expand(-1, c, -1)
    plane = torch.zeros((n, c, height * width), dtype=x.dtype, device=x.device)
    out = plane.scatter(2, flat, x.reshape(n, c, -1)).reshape(n, c, height, width)
    return out.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else out
