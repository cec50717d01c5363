"""Holistic max index: one position per cell for all channels (paper, section 3)."""

from __future__ import annotations

from torch import Tensor

from indexnet.resampling.base import Downsampled, OperatorInfo, ResamplingStage, register_resampling
from indexnet.resampling.functional import holistic_max_pool, holistic_max_unpool


@register_resampling
class HolisticMaxIndex(ResamplingStage):
    """Holistic max index: pooling and unpooling at the position of the channel-wise maximum.

    The index of a 2x2 cell is where the maximum over all channels is largest; every channel is read there when
    pooling and written there when unpooling, so any decoder width works. The guide is int64: flat positions in the H*W
    plane, (N, 1, ceil(H/2), ceil(W/2)).

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, default C; any.
    """

    takes_maxima = True
    up_has_weights = False

    info = OperatorInfo(
        name="holistic_max_index",
        title="Holistic max index (HMI)",
        paper="H. Lu et al., Index Networks, TPAMI 2020, baseline HMI",
        equation="p = argmax over cell (i, j) of max_c x[c]; down(x)[:, i, j] = x[:, p]; up(d)[:, p] = d[:, i, j]",
        guided=True,
        downsampling="max pooling",
    )

    def down(self, x: Tensor) -> Downsampled:
        features, indices = holistic_max_pool(x)
        return Downsampled(features, x, indices, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x, 1)
        return holistic_max_unpool(x, guide, size)
