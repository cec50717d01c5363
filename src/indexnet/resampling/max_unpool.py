"""Max pooling with unpooling at the remembered positions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling.base import Downsampled, OperatorInfo, ResamplingStage, register_resampling
from indexnet.resampling.functional import holistic_max_unpool


@register_resampling
class MaxUnpool(ResamplingStage):
    """2x2 max pooling and unpooling with one index per channel (SegNet).

    The guide is int64: flat positions in the H*W plane, (N, C, ceil(H/2), ceil(W/2)).

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, must equal C.

    Raises:
        UserError: the widths differ.
    """

    takes_maxima = True
    up_has_weights = False
    _by_scatter = False  # exporters do not know max_unpool2d

    info = OperatorInfo(
        name="max_unpool",
        title="Max unpooling",
        paper="V. Badrinarayanan et al., SegNet, TPAMI 2017",
        equation="up(d)[p] = d[i, j] at the maximum p of cell (i, j) of the encoder map, per channel; 0 elsewhere",
        guided=True,
        equal_widths=True,
        downsampling="max pooling",
    )

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self.require_equal_widths(
            "give it the encoder's width or choose an operator without an index per channel, such as 'nearest'."
        )

    def down(self, x: Tensor) -> Downsampled:
        # ceil_mode lets a last row or column without partner form a smaller cell: what repeating it would give.
        features, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        return Downsampled(features, x, indices, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x, 1)
        if self._by_scatter:
            return holistic_max_unpool(x, guide, size)
        return F.max_unpool2d(x, guide, [2, 2], output_size=list(size))

    def prepare_export(self) -> None:
        self._by_scatter = True
