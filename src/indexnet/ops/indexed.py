"""Indexed pooling and indexed upsampling on packed, low-resolution index maps.

Source: H. Lu, Y. Dai, C. Shen, S. Xu, "Index Networks", TPAMI 2022 (first in ICCV 2019), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from indexnet.ops.cells import pack_cells, unpack_cells

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
        logits: packed, (N, 4, C, h, w), floating point.
        normalization: one of :data:`NORMALIZATIONS`.

    Returns:
        Encoder and decoder map, both packed, in (0, 1).
    """
    if normalization == "softmax/softmax":
        both = torch.softmax(logits, 1)
        return both, both
    decoder = torch.sigmoid(logits)
    if normalization == "sigmoid+softmax/sigmoid":
        return torch.softmax(decoder, 1), decoder
    if normalization == "softmax+sigmoid/sigmoid":
        return torch.sigmoid(torch.softmax(logits, 1)), decoder
    return decoder, decoder


def indexed_pool(x: Tensor, encoder: Tensor) -> tuple[Tensor, Tensor]:
    """Weight a map with an encoder index map and sum over each 2x2 cell.

    Args:
        x: (N, C, 2h, 2w).
        encoder: packed index map, (N, 4, C or 1, h, w).

    Returns:
        The sums, (N, C, h, w), and the weighted map, (N, C, 2h, 2w).
    """
    weighted = encoder * pack_cells(x)
    return weighted.sum(1), unpack_cells(weighted)


def pool_with_logits(x: Tensor, logits: Tensor, normalization: str = NORMALIZATIONS[0]) -> tuple[Tensor, ...]:
    """Normalise index logits and pool with them.

    Args:
        x: (N, C, 2h, 2w).
        logits: packed, (N, 4, C or 1, h, w).
        normalization: one of :data:`NORMALIZATIONS`.

    Returns:
        Pooled map (N, C, h, w), weighted map (N, C, 2h, 2w), decoder index map (N, 4, C or 1, h, w).
    """
    encoder, decoder = normalise_indices(logits, normalization)
    features, weighted = indexed_pool(x, encoder)
    return features, weighted, decoder


def indexed_upsample(x: Tensor, decoder: Tensor) -> Tensor:
    """Repeat each value over its 2x2 cell, weighted with a decoder index map.

    Args:
        x: (N, C, h, w).
        decoder: packed index map, (N, 4, C or 1, h, w).

    Returns:
        (N, C, 2h, 2w).
    """
    return unpack_cells(decoder * x.unsqueeze(1))
