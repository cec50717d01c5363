"""CARAFE: content-aware reassembly of features."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import reassemble
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half
from indexnet.resampling.pooling import ANY_POOLING, POOLED, PooledStage


@register_resampling
class Carafe(PooledStage):
    """Pooling, then content-aware reassembly with kernels predicted from the decoder map.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
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
        downsampling=ANY_POOLING,
        parameters=f"64D + 57764 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        k_enc: int = 3,
        compressed: int = 64,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("k_up", k_up, odd=True)
        self.check_positive("k_enc", k_enc, odd=True)
        self.check_positive("compressed", compressed)
        if k_up == 1:
            # The toy experiments of the CARAFE rows are printed with k_up=1, so it is allowed.
            warnings.warn(
                "resampling 'carafe': k_up=1 is nearest neighbour upsampling, its weights learn nothing", stacklevel=2
            )
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
        logits = F.pixel_shuffle(self.encode(self.compress(x)), 2)
        return torch.softmax(logits, 1, dtype=full_precision(logits.dtype)).to(x.dtype)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return crop_to(reassemble(x, self.kernels(x), self.k_up), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions; the reassembly itself is free by the papers' rule."""
        weights = self.compress.weight.numel() + self.encode.weight.numel()
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        return 4 * self.k_up**2 * self.decoder_channels * half(height) * half(width)
