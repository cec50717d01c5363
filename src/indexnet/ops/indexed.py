"""Indexed pooling and indexed upsampling on packed, low-resolution index maps.

Source: H. Lu, Y. Dai, C. Shen, S. Xu, "Index Networks", TPAMI 2020 (first in ICCV 2019), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from indexnet.ops.cells import is_channels_last, pack_cells, unpack_cells

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
        Encoder and decoder map, both packed, in (0, 1).
    """
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
        encoder: packed index map, (N, C or 1, 4, h, w).

    Returns:
        (N, C, h, w), in the memory format of ``x``.
    """
    return _sum_cells(encoder * pack_cells(x), is_channels_last(x))


def indexed_pool_with_skip(x: Tensor, encoder: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`indexed_pool`, and return the weighted map too; both come from one product.

    Args:
        x: (N, C, 2h, 2w).
        encoder: packed index map, (N, C or 1, 4, h, w).

    Returns:
        The sums, (N, C, h, w), and the weighted map, (N, C, 2h, 2w), in the memory format of ``x``.
    """
    channels_last = is_channels_last(x)
    weighted = encoder * pack_cells(x)
    return _sum_cells(weighted, channels_last), unpack_cells(weighted, channels_last)


def _sum_cells(packed: Tensor, channels_last: bool) -> Tensor:
    out = packed.sum(2)
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out


def indexed_upsample(x: Tensor, decoder: Tensor) -> Tensor:
    """Repeat each value over its 2x2 cell, weighted with a decoder index map.

    Args:
        x: (N, C, h, w).
        decoder: packed index map, (N, C or 1, 4, h, w).

    Returns:
        (N, C, 2h, 2w), in the memory format of ``x``.
    """
    return unpack_cells(decoder * x.unsqueeze(2), is_channels_last(x))
