"""Pure functions on tensors: outputs assembled from neighbours, with kernels or at places of their own.

A *kernel* map (N, g*k*k, H, W) holds, for each output position and each of g groups of channels, the weights of the
k x k neighbours of its source value, in row-major order. Neighbours outside the map count as zero unless said so.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling.functional import full_precision, in_format, is_channels_last


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


def assemble(x: Tensor, kernels: Tensor, k: int, *, stride: int = 1, padding: str = "zeros") -> Tensor:
    """Sum the k x k neighbours of each value, or of each 2x2 cell, with kernels of their own.

    Neighbours are taken one after another, so that no neighbourhood lies in memory: for windows that are large, or at
    the higher of two resolutions.

    Args:
        x: (N, C, H, W), floating point.
        kernels: (N, k*k, H/stride, W/stride).
        k: size of the neighbourhood: odd with stride 1, even with stride 2, where it is centred on the cell.
        stride: 1, or 2 for even sizes.
        padding: ``zeros``, or ``reflect``, where a map that is too small for that repeats its border.

    Returns:
        (N, C, H/stride, W/stride), in the memory format of ``x``.
    """
    height, width = x.shape[-2:]
    padded = pad_around(x, (k - stride) // 2, padding)
    terms = (
        kernels[:, tap : tap + 1]
        * padded[..., tap // k : tap // k + height : stride, tap % k : tap % k + width : stride]
        for tap in range(k * k)
    )
    out = next(terms)
    for term in terms:
        out = out + term
    return out


def pad_around(x: Tensor, margin: int, padding: str) -> Tensor:
    """Pad a map (N, C, H, W) on all sides: ``zeros``, ``replicate``, or ``reflect`` where it is larger than that."""
    if padding == "reflect" and min(x.shape[-2:]) <= margin:
        padding = "replicate"
    return F.pad(x, (margin,) * 4, mode="constant" if padding == "zeros" else padding)


def similarity(queries: Tensor, keys: Tensor, k: int) -> Tensor:
    """Compare each value at the higher resolution with the k x k neighbours of its source value.

    Args:
        queries: (N, d, 2h, 2w), floating point.
        keys: (N, d, h, w); outside the map they are zero.
        k: odd neighbourhood size.

    Returns:
        Inner products, (N, k*k, 2h, 2w), in row-major order of the neighbours.
    """
    n, d, h, w = keys.shape
    patches = F.unfold(keys, k, padding=k // 2).reshape(n, d, k * k, h * w).permute(0, 3, 2, 1)
    cells = queries.reshape(n, d, h, 2, w, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w, d, 4)
    products = torch.matmul(patches, cells).reshape(n, h, w, k * k, 2, 2)
    return products.permute(0, 3, 1, 4, 2, 5).reshape(n, k * k, 2 * h, 2 * w)


def sample(x: Tensor, rows: Tensor, columns: Tensor, *, padding: str = "border") -> Tensor:
    """Interpolate a map bilinearly at any places.

    Args:
        x: (N, C, h, w), floating point.
        rows: of the places, (N, g, H, W), in pixels of ``x``, 0 the centre of its first row; g divides C, and each
            place serves one of g blocks of channels.
        columns: likewise.
        padding: ``border`` repeats the map's border, ``zeros`` surrounds it with zeros.

    Returns:
        (N, C, H, W), in the dtype and the memory format of ``x``.
    """
    n, c, h, w = x.shape
    g = rows.shape[1]
    dtype = full_precision(x.dtype)
    places = torch.stack([(2 * columns + 1) / w - 1, (2 * rows + 1) / h - 1], -1).to(dtype)
    out = F.grid_sample(
        x.reshape(n * g, c // g, h, w).to(dtype),
        places.reshape(n * g, *places.shape[2:]),
        mode="bilinear", padding_mode=padding, align_corners=False,
    )  # fmt: skip
    return in_format(out.reshape(n, c, *rows.shape[-2:]).to(x.dtype), is_channels_last(x))


def source_places(like: Tensor, scale: int = 2) -> tuple[Tensor, Tensor]:
    """Return where the centres of an upsampled map's pixels lie in its source.

    Args:
        like: (N, C, h, w), gives sizes, dtype and device.
        scale: upsampling factor.

    Returns:
        Rows (scale*h, 1) and columns (scale*w,), in pixels of the source, 0 the centre of the first.
    """
    dtype = full_precision(like.dtype)
    rows, columns = (
        (torch.arange(scale * size, dtype=dtype, device=like.device) + 0.5) / scale - 0.5 for size in like.shape[-2:]
    )
    return rows[:, None], columns
