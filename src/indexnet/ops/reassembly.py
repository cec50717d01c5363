"""Content-aware reassembly: every output value is a weighted sum over a k x k neighbourhood of its source.

Source: J. Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.ops.cells import is_channels_last


def reassemble(x: Tensor, kernels: Tensor, k: int, groups: int = 1, scale: int = 2) -> Tensor:
    """Sum the k x k neighbours of each source value with kernels of their own for each output position.

    Neighbours outside the map count as zero; the kernels are used as they are.

    Args:
        x: (N, C, h, w), floating point.
        kernels: (N, groups*k*k, scale*h, scale*w); taps of one group in row-major order.
        k: odd neighbourhood size.
        groups: number of channel groups with kernels of their own; divides C.
        scale: integer upsampling factor.

    Returns:
        (N, C, scale*h, scale*w), in the memory format of ``x``.
    """
    n, c, h, w = x.shape
    s, taps = scale, k * k
    # One product for each source position, (channels x taps)(taps x s*s): the s*s outputs of a source value share its
    # neighbourhood, which is therefore read at low resolution and never repeated.
    patches = F.unfold(x, k, padding=k // 2).reshape(n, groups, c // groups, taps, h * w).permute(0, 1, 4, 2, 3)
    weights = kernels.reshape(n, groups, taps, h, s, w, s).permute(0, 1, 3, 5, 2, 4, 6)
    out = torch.matmul(patches, weights.reshape(n, groups, h * w, taps, s * s))
    out = out.reshape(n, groups, h, w, c // groups, s, s)
    if is_channels_last(x):
        return out.permute(0, 2, 5, 3, 6, 1, 4).reshape(n, s * h, s * w, c).permute(0, 3, 1, 2)
    return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, c, s * h, s * w)
