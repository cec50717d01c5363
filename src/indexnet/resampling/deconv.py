"""Strided convolution and transposed convolution."""

from __future__ import annotations

from torch import Tensor, nn

from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, half
from indexnet.resampling.pooling import PooledStage


@register_resampling
class Deconv(PooledStage):
    """A 3x3 convolution with stride 2, and a 4x4 transposed convolution with stride 2; both with bias.

    Kernel sizes are this project's choice.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, which ``up`` receives and returns; default C; any.
    """

    info = OperatorInfo(
        name="deconv",
        title="Deconvolution",
        paper="M. Zeiler et al., Deconvolutional Networks, CVPR 2010",
        equation="up(d) = transposed convolution of d, 4x4, stride 2, padding 1",
        learned=True,
        downsampling="3x3 convolution with stride 2",
        parameters="9C^2 + C + 16D^2 + D",
    )

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__(channels, decoder_channels, pooling="conv")
        width = self.decoder_channels
        self.expand = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(self.expand(x), size)

    def paper_macs(self, height: int, width: int) -> int:
        """By the papers' counter a transposed convolution costs weights times *output* positions."""
        return super().paper_macs(height, width) + 4 * self._expand_macs(height, width)

    def true_macs(self, height: int, width: int) -> int:
        """A transposed convolution really uses each weight once per *input* position."""
        return super().paper_macs(height, width) + self._expand_macs(height, width)

    def _expand_macs(self, height: int, width: int) -> int:
        return 16 * self.decoder_channels**2 * half(height) * half(width)
