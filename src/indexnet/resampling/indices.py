"""Max pooling with indices: one index per channel, or one for all channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from indexnet.errors import UserError
from indexnet.ops import holistic_max_pool, holistic_max_unpool
from indexnet.resampling.base import Downsampled, OperatorInfo, Resampling, ResamplingStage, register_resampling


def require_equal_widths(operator: str, index: int, channels: int, decoder_channels: int, remedy: str) -> None:
    """Refuse a stage whose decoder width differs from its encoder width.

    Raises:
        UserError: the widths differ; the message names the stage and both.
    """
    if channels != decoder_channels:
        raise UserError(
            f"resampling {operator!r}, stage {index}: the encoder map has {channels} channels but the decoder map "
            f"{decoder_channels}, and an index per channel needs equal widths; {remedy}"
        )


class MaxUnpoolStage(ResamplingStage):
    """2x2 max pooling whose positions guide the unpooling of the same resolution."""

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map; guide = int64 flat positions in the H*W plane, (N, C, ceil(H/2), ceil(W/2))."""
        # ceil_mode lets a last row or column without partner form a smaller cell: what repeating it would give.
        features, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        return Downsampled(features, x, indices, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Put each value back where its maximum was, zeros elsewhere."""
        assert guide is not None
        return F.max_unpool2d(x, guide, [2, 2], output_size=list(size))


@register_resampling
class MaxUnpool(Resampling):
    """Max pooling and unpooling with one index per channel (SegNet).

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives; must equal ``channels``.

    Raises:
        UserError: a decoder width differs from the encoder width of its stage.
    """

    info = OperatorInfo(
        name="max_unpool",
        title="Max unpooling",
        paper="V. Badrinarayanan et al., SegNet, TPAMI 2017",
        equation="up(d)[p] = d[i, j] at the maximum p of cell (i, j) of the encoder map, per channel; 0 elsewhere",
        learned=False,
        guided=True,
        equal_widths=True,
        downsampling="max pooling",
        parameters="0",
    )

    def __init__(self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> MaxUnpoolStage:
        """Build stage ``index``."""
        remedy = "give it the encoder's width or choose an operator without an index per channel, such as 'nearest'."
        require_equal_widths("max_unpool", index, channels, decoder_channels, remedy)
        return MaxUnpoolStage(channels, decoder_channels)


class HolisticMaxIndexStage(ResamplingStage):
    """Max pooling and unpooling with one index for all channels."""

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map; guide = int64 flat positions in the H*W plane, (N, 1, ceil(H/2), ceil(W/2))."""
        features, indices = holistic_max_pool(x)
        return Downsampled(features, x, indices, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Put all channels of a value back at the shared position, zeros elsewhere."""
        assert guide is not None
        return holistic_max_unpool(x, guide, size)


@register_resampling
class HolisticMaxIndex(Resampling):
    """Holistic max index: pooling and unpooling at the position of the channel-wise maximum.

    The index of a 2x2 cell is where the maximum over all channels is largest; every channel is read there when
    pooling and written there when unpooling, so any decoder width works.

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives; any.
    """

    info = OperatorInfo(
        name="holistic_max_index",
        title="Holistic max index (HMI)",
        paper="H. Lu et al., Index Networks, TPAMI 2020, baseline HMI",
        equation="p = argmax over cell (i, j) of max_c x[c]; down(x)[:, i, j] = x[:, p]; up(d)[:, p] = d[:, i, j]",
        learned=False,
        guided=True,
        equal_widths=False,
        downsampling="max pooling",
        parameters="0",
    )

    def __init__(self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> HolisticMaxIndexStage:
        """Build stage ``index``."""
        return HolisticMaxIndexStage(channels, decoder_channels)
