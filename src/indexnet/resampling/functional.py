"""Pure functions on tensors: what the operators are made of.

A *cell* is a 2x2 block of a map; its four positions are always ordered top-left, top-right, bottom-left,
bottom-right. A *packed* map holds the four positions of each cell in a dimension of its own, (N, C, 4, h, w), at half
the resolution of the map (N, C, 2h, 2w) that it stands for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from indexnet.core.constants import constant
from indexnet.core.errors import UserError

NORMALIZATIONS = (
    "sigmoid+softmax/sigmoid",
    "sigmoid/sigmoid",
    "softmax/softmax",
    "softmax+sigmoid/sigmoid",
)
"""The pairs encoder/decoder of the paper's normalization ablation; ``a+b`` means b(a(logits))."""


def normalise_indices(logits: Tensor, normalization: str = NORMALIZATIONS[0]) -> tuple[Tensor, Tensor]:
    """Turn index logits into the encoder and the decoder index map.

    Softmax runs over the four positions of a cell, sigmoid over each value alone.

    Args:
        logits: packed, (N, C, 4, h, w), floating point.
        normalization: one of :data:`NORMALIZATIONS`.

    Returns:
        Encoder and decoder map, both packed, in (0, 1), and in single precision where logits are in half.
    """
    logits = logits.to(full_precision(logits.dtype))
    if normalization == "softmax/softmax":
        both = torch.softmax(logits, 2)
        return both, both
    decoder = torch.sigmoid(logits)
    if normalization == "sigmoid+softmax/sigmoid":
        return torch.softmax(decoder, 2), decoder
    if normalization == "softmax+sigmoid/sigmoid":
        return torch.sigmoid(torch.softmax(logits, 2)), decoder
    return decoder, decoder


def indexed_pool(x: Tensor, encoder: Tensor) -> Tensor:
    """Weight a map with an encoder index map and sum over each 2x2 cell.

    Args:
        x: (N, C, 2h, 2w).
        encoder: packed index map, (N, C or 1, 4, h, w); one of a higher precision is multiplied and summed in that.

    Returns:
        (N, C, h, w), in the memory format and the dtype of ``x``.
    """
    return _sum_cells(encoder * pack_cells(x), is_channels_last(x)).to(x.dtype)


def indexed_pool_with_skip(x: Tensor, encoder: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`indexed_pool`, and return the weighted map too; both come from one product.

    Args:
        x: (N, C, 2h, 2w).
        encoder: packed index map, (N, C or 1, 4, h, w).

    Returns:
        The sums, (N, C, h, w), and the weighted map, (N, C, 2h, 2w), in the memory format and the dtype of ``x``.
    """
    channels_last = is_channels_last(x)
    weighted = encoder * pack_cells(x)
    return _sum_cells(weighted, channels_last).to(x.dtype), unpack_cells(weighted.to(x.dtype), channels_last)


def _sum_cells(packed: Tensor, channels_last: bool) -> Tensor:
    return in_format(packed.sum(2), channels_last)


def in_format(x: Tensor, channels_last: bool) -> Tensor:
    """Return a map (N, C, H, W) in the memory format channels-last, or as it is."""
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def indexed_upsample(x: Tensor, decoder: Tensor) -> Tensor:
    """Repeat each value over its 2x2 cell, weighted with a decoder index map.

    Args:
        x: (N, C, h, w).
        decoder: packed index map, (N, C or 1, 4, h, w); may be of a higher precision.

    Returns:
        (N, C, 2h, 2w), in the memory format and the dtype of ``x``.
    """
    return unpack_cells((decoder * x.unsqueeze(2)).to(x.dtype), is_channels_last(x))


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
    flat = indices.flatten(2).expand(-1, c, -1)
    pooled = x.reshape(n, c, -1).gather(2, flat).reshape(n, c, *indices.shape[-2:])
    return in_format(pooled, is_channels_last(x)), indices


def holistic_max_unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Put each value back at its index and zeros elsewhere.

    Args:
        x: (N, C, h, w).
        indices: int64 flat positions, (N, C or 1, h, w), as from :func:`holistic_max_pool`.
        size: (H, W) of the map that was pooled.

    Returns:
        (N, C, H, W), in the memory format of ``x``.
    """
    n, c = x.shape[:2]
    flat = indices.flatten(2).expand(-1, c, -1)
    plane = torch.zeros((n, c, size[0] * size[1]), dtype=x.dtype, device=x.device)
    out = plane.scatter(2, flat, x.reshape(n, c, -1)).reshape(n, c, *size)
    return in_format(out, is_channels_last(x))


def haar_bands(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split a map into its Haar wavelet bands, orthonormal.

    Args:
        x: (N, C, 2h, 2w), floating point.

    Returns:
        LL, LH, HL and HH, each (N, C, h, w). Of a cell [[a, b], [c, d]]: LL = (a+b+c+d)/2, which is twice the mean,
        LH = (-a+b-c+d)/2, HL = (-a-b+c+d)/2, HH = (a-b-c+d)/2.
    """
    a, b, c, d = (0.5 * x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    return a + b + c + d, b + d - a - c, c + d - a - b, a + d - b - c


def haar_merge(low: Tensor, lh: Tensor, hl: Tensor, hh: Tensor) -> Tensor:
    """Put Haar wavelet bands together again, the inverse of :func:`haar_bands`.

    Args:
        low: LL, (N, C, h, w).
        lh: as ``low``, and so ``hl`` and ``hh``.
        hl: see ``lh``.
        hh: see ``lh``.

    Returns:
        (N, C, 2h, 2w), in the memory format of ``low``.
    """
    cells = (low - lh - hl + hh, low + lh - hl - hh, low - lh + hl - hh, low + lh + hl + hh)
    return unpack_cells(0.5 * torch.stack(cells, 2), is_channels_last(low))


def blur_pool(x: Tensor, size: int) -> Tensor:
    """Filter each channel with a binomial kernel and keep every second pixel.

    The map is reflected at its borders, or its border values repeated where it is too small for that.

    Args:
        x: (N, C, H, W), floating point.
        size: of the kernel, 1 to 7: rows of Pascal's triangle, such as 1 3 3 1, in both directions.

    Returns:
        (N, C, ceil(H/2), ceil(W/2)), in the memory format of ``x``.
    """
    row = constant([math.comb(size - 1, k) for k in range(size)], x) / 2 ** (size - 1)
    before, after = (size - 1) // 2, size // 2
    small = min(x.shape[-2:]) <= after
    x = F.pad(x, (before, after, before, after), mode="replicate" if small else "reflect")
    channels = int(x.shape[1])  # a plain number also while an exporter traces
    return F.conv2d(x, torch.outer(row, row).expand(channels, 1, size, size), stride=2, groups=channels)


def soft_pool(x: Tensor) -> Tensor:
    """Weight the four values of each 2x2 cell with their softmax, per channel, and sum.

    Args:
        x: (N, C, 2h, 2w), floating point.

    Returns:
        (N, C, h, w), in the memory format of ``x``.
    """
    cells = pack_cells(x)
    weights = torch.softmax(cells, 2, dtype=full_precision(cells.dtype))
    return _sum_cells((weights * cells).to(x.dtype), is_channels_last(x))


def full_precision(dtype: torch.dtype) -> torch.dtype:
    """Return single precision for a half one, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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


class SizeError(UserError):
    """A map has not the size that a doubled one has."""


def crop_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the last row and column where ``size`` is odd, the inverse of :func:`pad_to_even`.

    Args:
        x: (N, C, H, W).
        size: wanted (height, width), each that of ``x`` or one less.

    Returns:
        (N, C, *size), a view of ``x``; ``x`` itself where it has that size.

    Raises:
        SizeError: more would be cut than an odd size explains, or there is too little.
    """
    height, width = size
    if x.shape[-2] == height and x.shape[-1] == width:
        return x
    # while traced, sizes may be symbols, of which nothing is known
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if not traced and not (0 <= x.shape[-2] - height <= 1 and 0 <= x.shape[-1] - width <= 1):
        raise SizeError(
            f"a map of {x.shape[-2]}x{x.shape[-1]} cannot be cut to {height}x{width}: up doubles a map, so at most "
            "one row and one column, those of an odd size, are too many."
        )
    return x[..., :height, :width]


def half(size: int) -> int:
    """Return the size of a map after one stage: half, rounded up."""
    return (size + 1) // 2


def is_channels_last(x: Tensor) -> bool:
    """Whether a map (N, C, H, W) lies in memory channels-last and not channels-first."""
    if x.is_contiguous() or x.stride(1) != 1:  # asked first: vmap cannot tell of other formats
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


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
