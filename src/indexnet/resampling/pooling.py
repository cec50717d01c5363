"""The unguided halves that several operators share: maximum, average, strided convolution, or the encoder's own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.base import Downsampled, ResamplingStage
from indexnet.resampling.functional import half, pad_to_even

POOLINGS = ("max", "avg", "conv", "encoder")


class PooledStage(ResamplingStage):
    """A stage whose ``down`` pools and whose skip is its input.

    ``max`` and ``avg`` work on 2x2 cells, with the last row or column repeated where a size is odd. ``conv`` is a 3x3
    convolution of its own, stride 2, padding 1, with bias, C -> C. ``encoder`` leaves it to the encoder, whose own
    convolution before the stage strides; only some networks can.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, default C; any.
        pooling: ``max``, ``avg``, ``conv`` or ``encoder``.

    Raises:
        UserError: unknown pooling.
    """

    def __init__(self, channels: int, decoder_channels: int | None = None, *, pooling: str = "max") -> None:
        super().__init__(channels, decoder_channels)
        self.check_choice("pooling", pooling, POOLINGS)
        self.pooling = pooling
        self.strided = pooling == "encoder"
        if pooling == "conv":
            self.reduce = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map (N, C, H, W); skip is ``x``, there is no guide."""
        size = (x.shape[-2], x.shape[-1])
        even = pad_to_even(x)
        if self.pooling == "max":
            features = F.max_pool2d(even, 2)
        elif self.pooling == "avg":
            features = F.avg_pool2d(even, 2)
        elif self.pooling == "conv":
            features = self.reduce(even)
        else:
            raise RuntimeError("pooling='encoder': the network halves and calls pass_through, not down")
        return Downsampled(features, x, None, size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the strided convolution, 9*C*C a low-resolution position; 0 for the other poolings."""
        if self.pooling != "conv":
            return 0
        return 9 * self.channels**2 * half(height) * half(width)
