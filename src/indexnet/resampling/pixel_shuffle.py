"""Space to depth and pixel shuffle."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.base import Downsampled, OperatorInfo, ResamplingStage, register_resampling
from indexnet.resampling.functional import crop_to, half, pad_to_even


@register_resampling
class PixelShuffle(ResamplingStage):
    """Space-to-depth and a 1x1 convolution 4C -> C; a 1x1 convolution D -> 4D and depth-to-space; with bias.

    The widths of the convolutions are this project's choice.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, which ``up`` receives and returns; default C; any.
    """

    info = OperatorInfo(
        name="pixel_shuffle",
        title="Pixel shuffle",
        paper="W. Shi et al., Real-Time Single Image and Video Super-Resolution, CVPR 2016",
        equation="down(x) = conv1x1(space_to_depth(x)); up(d) = depth_to_space(conv1x1(d))",
        learned=True,
        downsampling="space-to-depth and 1x1 convolution",
        parameters="4C^2 + C + 4D^2 + 4D",
    )

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self.reduce = nn.Conv2d(4 * channels, channels, 1)
        self.expand = nn.Conv2d(self.decoder_channels, 4 * self.decoder_channels, 1)

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map (N, C, H, W); skip is ``x``, there is no guide."""
        features = self.reduce(F.pixel_unshuffle(pad_to_even(x), 2))
        return Downsampled(features, x, None, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(F.pixel_shuffle(self.expand(x), 2), size)

    def drop_pooling(self) -> None:
        del self.reduce

    def paper_macs(self, height: int, width: int) -> int:
        """4*C*C + 4*D*D multiply-adds a low-resolution position."""
        pooling = self.channels**2 if "reduce" in self._modules else 0
        return 4 * (pooling + self.decoder_channels**2) * half(height) * half(width)
