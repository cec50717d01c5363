"""Content-aware reassembly: every output value is a weighted sum over a k x k neighbourhood of its source.

Source: J. Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, section 3.2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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
        (N, C, scale*h, scale*w).
    """
    n, c, h, w = x.shape
    s = scale
    # (N, g, taps, h, s, w, s): the s*s outputs of one source value share its neighbourhood, which is read at low
    # resolution instead of being repeated s*s times.
    taps = kernels.reshape(n, groups, k * k, h, s, w, s)
    padded = F.pad(x, (k // 2,) * 4).reshape(n, groups, c // groups, h + k - 1, w + k - 1)
    out: Tensor | None = None
    for tap in range(k * k):
        row, column = divmod(tap, k)
        source = padded[..., row : row + h, column : column + w].reshape(n, groups, -1, h, 1, w, 1)
        term = source * taps[:, :, tap].unsqueeze(2)
        out = term if out is None else out + term
    assert out is not None
    return out.reshape(n, c, s * h, s * w)
