"""Haar wavelet pooling and unpooling: an exact pair without weights."""

from __future__ import annotations

import torch
from torch import Tensor

from indexnet.resampling.base import Downsampled, OperatorInfo, ResamplingStage, register_resampling
from indexnet.resampling.functional import crop_to, haar_bands, haar_merge, pad_to_even


@register_resampling
class Haar(ResamplingStage):
    """The low band goes down, the three detail bands to ``up``, which puts all four together again.

    The guide is the bands LH, HL, HH, one after another: (N, 3C, h, w). ``up`` of what ``down`` gave is its input.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, must equal C.
        normalize: whether the low band is the mean of a cell instead of twice the mean.

    Raises:
        UserError: the widths differ, or a value that is neither true nor false.
    """

    up_has_weights = False

    info = OperatorInfo(
        name="haar",
        title="Haar wavelet pooling",
        paper="J. Yoo et al., Photorealistic Style Transfer via Wavelet Transforms, ICCV 2019",
        equation="down(x) = LL(x) / 2; up(d) = inverse transform of (2d, LH(x), HL(x), HH(x))",
        guided=True,
        equal_widths=True,
        downsampling="the low band of the Haar transform",
    )

    def __init__(self, channels: int, decoder_channels: int | None = None, *, normalize: bool = True) -> None:
        super().__init__(channels, decoder_channels)
        self.check_choice("normalize", normalize, (True, False))
        self.scale = 2.0 if normalize else 1.0
        self.require_equal_widths(
            "give it the encoder's width or choose an operator without detail bands, such as 'nearest'."
        )

    def down(self, x: Tensor) -> Downsampled:
        low, *details = haar_bands(pad_to_even(x))
        return Downsampled(low / self.scale, x, torch.cat(details, 1), (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x, 1)
        return crop_to(haar_merge(self.scale * x, *guide.to(x.dtype).chunk(3, 1)), size)
