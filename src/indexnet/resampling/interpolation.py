"""Fixed upsampling after any pooling: nearest neighbour and bilinear interpolation."""

from __future__ import annotations

import dataclasses

from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to
from indexnet.resampling.pooling import PooledStage


@register_resampling
class Nearest(PooledStage):
    """Nearest neighbour upsampling after max pooling, average pooling or a strided convolution."""

    info = OperatorInfo(
        name="nearest",
        title="Nearest neighbour",
        paper="textbook",
        equation="up(d)[2i+a, 2j+b] = d[i, j]",
        downsampling="max pooling | average pooling | 3x3 convolution with stride 2 | the encoder's stride",
        parameters="0 (max, avg, encoder) | 9C^2 + C (conv)",
    )

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(F.interpolate(x, scale_factor=2.0, mode="nearest"), size)


@register_resampling
class Bilinear(PooledStage):
    """Bilinear upsampling after max pooling, average pooling or a strided convolution."""

    info = dataclasses.replace(
        Nearest.info,
        name="bilinear",
        title="Bilinear",
        equation="up(d)[y, x] = sum of the four nearest values of d, weighted by distance; corners not aligned",
    )

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), size)
