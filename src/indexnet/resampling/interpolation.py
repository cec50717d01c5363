"""Fixed upsampling after any pooling: nearest neighbour and bilinear interpolation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling.base import OperatorInfo, Resampling, register_resampling
from indexnet.resampling.functional import crop_to
from indexnet.resampling.pooling import PooledStage, check_pooling


class InterpolationStage(PooledStage):
    """Pooling, then interpolation of a fixed kind.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, default C; any.
        pooling: ``max``, ``avg``, ``conv`` or ``encoder``.
        mode: ``nearest`` or ``bilinear`` (corners not aligned).
    """

    def __init__(
        self, channels: int, decoder_channels: int | None = None, pooling: str = "max", mode: str = "nearest"
    ) -> None:
        super().__init__(channels, decoder_channels, pooling)
        self.mode = mode

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Interpolate (N, C', h, w) by 2 and cut to ``size``; the guide is not used."""
        align = False if self.mode == "bilinear" else None
        return crop_to(F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=align), size)


class _Interpolation(Resampling):
    """What nearest and bilinear upsampling share.

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives; any.
        pooling: ``max``, ``avg``, ``conv`` (3x3, stride 2, its own) or ``encoder`` (its convolution strides).

    Raises:
        UserError: unknown pooling.
    """

    def __init__(
        self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None, *, pooling: str = "max"
    ) -> None:
        super().__init__(channels, decoder_channels)
        check_pooling(self.info.name, pooling)
        self.pooling = pooling
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> InterpolationStage:
        """Build stage ``index``."""
        return InterpolationStage(channels, decoder_channels, self.pooling, self.info.name)


@register_resampling
class Nearest(_Interpolation):
    """Nearest neighbour upsampling after max pooling, average pooling or a strided convolution."""

    info = OperatorInfo(
        name="nearest",
        title="Nearest neighbour",
        paper="textbook",
        equation="up(d)[2i+a, 2j+b] = d[i, j]",
        learned=True,
        guided=False,
        equal_widths=False,
        downsampling="max pooling | average pooling | 3x3 convolution with stride 2 | the encoder's stride",
        parameters="0 (max, avg, encoder) | 9C^2 + C (conv)",
    )


@register_resampling
class Bilinear(_Interpolation):
    """Bilinear upsampling after max pooling, average pooling or a strided convolution."""

    info = dataclasses.replace(
        Nearest.info,
        name="bilinear",
        title="Bilinear",
        equation="up(d)[y, x] = sum of the four nearest values of d, weighted by distance; corners not aligned",
    )
