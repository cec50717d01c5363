"""Pure functions on tensors: what the operators are made of, and what losses, metrics and networks share.

A *cell* is a 2x2 block of a map; its four positions are always ordered top-left, top-right, bottom-left,
bottom-right. A *packed* map holds the four positions of each cell in a dimension of its own, (N, C, 4, h, w), at half
the resolution of the map (N, C, 2h, 2w) that it stands for.
"""

from indexnet.ops.cells import crop_to, is_channels_last, pack_cells, pad_to_even, unpack_cells
from indexnet.ops.holistic import holistic_max_pool, holistic_max_unpool
from indexnet.ops.indexed import (
    NORMALIZATIONS,
    indexed_pool,
    indexed_pool_with_skip,
    indexed_upsample,
    normalise_indices,
)
from indexnet.ops.labels import IGNORE
from indexnet.ops.reassembly import reassemble
from indexnet.ops.trimap import UNKNOWN, unknown_mask

__all__ = [
    "IGNORE",
    "NORMALIZATIONS",
    "UNKNOWN",
    "crop_to",
    "holistic_max_pool",
    "holistic_max_unpool",
    "indexed_pool",
    "indexed_pool_with_skip",
    "indexed_upsample",
    "is_channels_last",
    "normalise_indices",
    "pack_cells",
    "pad_to_even",
    "reassemble",
    "unknown_mask",
    "unpack_cells",
]
