"""Fixed upsampling after any pooling: nearest neighbour and bilinear interpolation."""

from __future__ import annotations

import dataclasses

from torch import Tensor
from torch.nn import functional as F

from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to
from indexnet.resampling.pooling import ANY_POOLING, POOLED, PooledStage


@register_resampling
class Nearest(PooledStage):
    """Nearest neighbour upsampling after any pooling of :class:`indexnet.resampling.pooling.PooledStage`."""

    up_has_weights = False

    info = OperatorInfo(
        name="nearest",
        title="Nearest neighbour",
        paper="textbook",
        equation="up(d)[2i+a, 2j+b] = d[i, j]",
        downsampling=ANY_POOLING,
        parameters=f"0{POOLED}",
    )

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(F.interpolate(x, scale_factor=2.0, mode="nearest"), size)


@register_resampling
class Bilinear(PooledStage):
    """Bilinear upsampling after any pooling of :class:`indexnet.resampling.pooling.PooledStage`."""

    up_has_weights = False

    info = dataclasses.replace(
        Nearest.info,
        name="bilinear",
        title="Bilinear",
        equation="up(d)[y, x] = sum of the four nearest values of d, weighted by distance; corners not aligned",
    )

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), size)
