"""Learned upsampling that does not look at the encoder: deconvolution, pixel shuffle, CARAFE."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.ops import crop_to, pad_to_even, reassemble
from indexnet.resampling._options import check_positive
from indexnet.resampling.base import Downsampled, OperatorInfo, Resampling, ResamplingStage, register_resampling
from indexnet.resampling.pooling import PooledStage, check_pooling, half


class DeconvStage(PooledStage):
    """A 3x3 convolution with stride 2, and a 4x4 transposed convolution with stride 2; both with bias."""

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__(channels, decoder_channels, "conv")
        width = self.decoder_channels
        self.expand = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Double (N, C', h, w) by the transposed convolution and cut to ``size``."""
        return crop_to(self.expand(x), size)

    def paper_macs(self, height: int, width: int) -> int:
        """By the papers' counter a transposed convolution costs weights times *output* positions."""
        return super().paper_macs(height, width) + 4 * self._expand_macs(height, width)

    def true_macs(self, height: int, width: int) -> int:
        """A transposed convolution really uses each weight once per *input* position."""
        return super().paper_macs(height, width) + self._expand_macs(height, width)

    def _expand_macs(self, height: int, width: int) -> int:
        return 16 * self.decoder_channels**2 * half(height) * half(width)


@register_resampling
class Deconv(Resampling):
    """Strided 3x3 convolution and 4x4 transposed convolution, both with bias (kernel sizes are this project's choice).

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives and returns; any.
    """

    info = OperatorInfo(
        name="deconv",
        title="Deconvolution",
        paper="M. Zeiler et al., Deconvolutional Networks, CVPR 2010",
        equation="up(d) = transposed convolution of d, 4x4, stride 2, padding 1",
        learned=True,
        guided=False,
        equal_widths=False,
        downsampling="3x3 convolution with stride 2",
        parameters="9C^2 + C + 16D^2 + D",
    )

    def __init__(self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> DeconvStage:
        """Build stage ``index``."""
        return DeconvStage(channels, decoder_channels)


class PixelShuffleStage(ResamplingStage):
    """Space-to-depth and a 1x1 convolution 4C -> C; a 1x1 convolution D -> 4D and depth-to-space; with bias."""

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self.reduce = nn.Conv2d(4 * channels, channels, 1)
        self.expand = nn.Conv2d(self.decoder_channels, 4 * self.decoder_channels, 1)

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map (N, C, H, W); skip is ``x``, there is no guide."""
        features = self.reduce(F.pixel_unshuffle(pad_to_even(x), 2))
        return Downsampled(features, x, None, (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Double (N, C', h, w) and cut to ``size``."""
        return crop_to(F.pixel_shuffle(self.expand(x), 2), size)

    def paper_macs(self, height: int, width: int) -> int:
        """4*C*C + 4*D*D multiply-adds a low-resolution position."""
        return 4 * (self.channels**2 + self.decoder_channels**2) * half(height) * half(width)


@register_resampling
class PixelShuffle(Resampling):
    """Space-to-depth and depth-to-space, each with a 1x1 convolution (their widths are this project's choice).

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives and returns; any.
    """

    info = OperatorInfo(
        name="pixel_shuffle",
        title="Pixel shuffle",
        paper="W. Shi et al., Real-Time Single Image and Video Super-Resolution, CVPR 2016",
        equation="down(x) = conv1x1(space_to_depth(x)); up(d) = depth_to_space(conv1x1(d))",
        learned=True,
        guided=False,
        equal_widths=False,
        downsampling="space-to-depth and 1x1 convolution",
        parameters="4C^2 + C + 4D^2 + 4D",
    )

    def __init__(self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None) -> None:
        super().__init__(channels, decoder_channels)
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> PixelShuffleStage:
        """Build stage ``index``."""
        return PixelShuffleStage(channels, decoder_channels)


class CarafeStage(PooledStage):
    """Pooling, then content-aware reassembly with kernels predicted from the decoder map.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C.
        pooling: ``max``, ``avg``, ``conv`` or ``encoder``.
        k_up: size of the reassembly neighbourhood, odd.
        k_enc: size of the kernel-predicting convolution, odd.
        compressed: width that the decoder map is compressed to.
    """

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        pooling: str = "max",
        k_up: int = 5,
        k_enc: int = 3,
        compressed: int = 64,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling)
        self.k_up = k_up
        self.compress = nn.Conv2d(self.decoder_channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, 4 * k_up**2, k_enc, padding=k_enc // 2)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.zeros_(self.compress.bias)  # type: ignore[arg-type]
        # Nearly equal logits: training starts from a uniform k_up x k_up blur.
        nn.init.normal_(self.encode.weight, std=1e-3)
        nn.init.zeros_(self.encode.bias)  # type: ignore[arg-type]

    def kernels(self, x: Tensor) -> Tensor:
        """Predict reassembly kernels, (N, k_up*k_up, 2h, 2w), positive and summing to 1 over dimension 1."""
        return torch.softmax(F.pixel_shuffle(self.encode(self.compress(x)), 2), 1)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Reassemble (N, C', h, w) at twice the resolution and cut to ``size``."""
        return crop_to(reassemble(x, self.kernels(x), self.k_up), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions; the reassembly itself is free by the papers' rule."""
        weights = self.compress.weight.numel() + self.encode.weight.numel()
        return super().paper_macs(height, width) + weights * half(height) * half(width)


@register_resampling
class Carafe(Resampling):
    """CARAFE after max pooling, average pooling or a strided convolution.

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives; any.
        pooling: ``max``, ``avg``, ``conv`` (3x3, stride 2, its own) or ``encoder`` (its convolution strides).
        k_up: size of the reassembly neighbourhood, odd; 1 is nearest neighbour with unused weights.
        k_enc: size of the kernel-predicting convolution, odd.
        compressed: width that the decoder map is compressed to.

    Raises:
        UserError: unknown pooling, even kernel sizes, or values that are not positive integers.
    """

    info = OperatorInfo(
        name="carafe",
        title="CARAFE",
        paper="J. Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019",
        equation="up(d)[p] = sum over the k_up x k_up neighbours q of p/2 of softmax_q(conv(conv1x1(d)))[p, q] d[q]",
        learned=True,
        guided=False,
        equal_widths=False,
        downsampling="max pooling | average pooling | 3x3 convolution with stride 2 | the encoder's stride",
        parameters="64D + 57764 at the default options (+ 9C^2 + C with pooling=conv)",
    )

    def __init__(
        self,
        channels: Sequence[int],
        decoder_channels: Sequence[int] | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        k_enc: int = 3,
        compressed: int = 64,
    ) -> None:
        super().__init__(channels, decoder_channels)
        check_pooling("carafe", pooling)
        check_positive("carafe", "k_up", k_up, odd=True)
        check_positive("carafe", "k_enc", k_enc, odd=True)
        check_positive("carafe", "compressed", compressed)
        if k_up == 1:
            # The toy experiments of the CARAFE rows are printed with k_up=1, so it is allowed.
            warnings.warn(
                "resampling 'carafe': k_up=1 is nearest neighbour upsampling, its weights learn nothing", stacklevel=2
            )
        self.pooling, self.k_up, self.k_enc, self.compressed = pooling, k_up, k_enc, compressed
        self._build_stages()

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> CarafeStage:
        """Build stage ``index``."""
        return CarafeStage(channels, decoder_channels, self.pooling, self.k_up, self.k_enc, self.compressed)
