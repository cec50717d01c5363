"""The public name of :mod:`indexnet.resampling.functional`, of reassembly and of the conventions of labels and trimaps.

A *cell* is a 2x2 block of a map; its four positions are always ordered top-left, top-right, bottom-left,
bottom-right. A *packed* map holds the four positions of each cell in a dimension of its own, (N, C, 4, h, w), at half
the resolution of the map (N, C, 2h, 2w) that it stands for.
"""

from indexnet.core.conventions import IGNORE, UNKNOWN, unknown_mask
from indexnet.resampling.assembly import reassemble
from indexnet.resampling.functional import (
    NORMALIZATIONS,
    crop_to,
    holistic_max_pool,
    holistic_max_unpool,
    indexed_pool,
    indexed_pool_with_skip,
    indexed_upsample,
    is_channels_last,
    normalise_indices,
    pack_cells,
    pad_to_even,
    unpack_cells,
)
from indexnet.resampling.fused.operators import triton_form
from indexnet.resampling.fused.tail import readable_form

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
    "readable_form",
    "reassemble",
    "triton_form",
    "unknown_mask",
    "unpack_cells",
]
