"""FADE: kernels from encoder and decoder map together, and a gate between the encoder map and what they assemble."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import reassemble
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage


def _xavier(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@register_resampling
class SemiShift(GuidedStage):
    """Pooling, then reassembly with kernels that see the encoder map at high and the decoder map at low resolution.

    The guide is the encoder map, (N, C, 2h, 2w).

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the reassembly neighbourhood, odd.
        compressed: width m that both maps are compressed to.

    Raises:
        UserError: unknown pooling, an even kernel size, or values that are not positive integers.
    """

    info = OperatorInfo(
        name="semi_shift",
        title="Semi-shift upsampling",
        paper="H. Lu et al., FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling, ECCV 2022",
        equation=(
            "up(d)[p] = sum over the k_up x k_up neighbours q of p/2 of "
            "softmax_q(e(conv1x1(x)) + e(conv1x1(d)))[p, q] d[q]"
        ),
        learned=True,
        guided=True,
        downsampling=ANY_POOLING,
        parameters=f"64(C + D) + 14489 at the default options{POOLED}",
    )
    gated: ClassVar[bool] = False
    depthwise: ClassVar[bool] = False

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        compressed: int = 64,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("k_up", k_up, odd=True)
        self.check_positive("compressed", compressed)
        if self.gated:
            self.require_equal_widths(
                "FADE blends the two maps: give it the encoder's width, or choose 'semi_shift', which does not blend."
            )
        self.k_up = k_up
        self.compress_encoder = _xavier(nn.Conv2d(channels, compressed, 1))
        self.compress_decoder = _xavier(nn.Conv2d(self.decoder_channels, compressed, 1, bias=False))
        groups = compressed if self.depthwise else 1
        self.encode = _xavier(nn.Conv2d(compressed, k_up**2, 3, padding=1, groups=groups))  # of both maps
        self.gate = _xavier(nn.Conv2d(self.decoder_channels, 1, 1)) if self.gated else None

    def kernels(self, x: Tensor, guide: Tensor) -> Tensor:
        """Predict reassembly kernels, (N, k_up*k_up, 2h, 2w), positive and summing to 1 over dimension 1."""
        low = F.interpolate(self.encode(self.compress_decoder(x)), scale_factor=2.0, mode="nearest")
        logits = self.encode(self.compress_encoder(guide)) + low
        return torch.softmax(logits, 1, dtype=full_precision(logits.dtype)).to(x.dtype)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        up = reassemble(x, self.kernels(x, guide), self.k_up)
        if self.gate is not None:
            gate = F.interpolate(torch.sigmoid(self.gate(x)), scale_factor=2.0, mode="nearest").to(x.dtype)
            up = gate * guide.to(x.dtype) + (1 - gate) * up
        return crop_to(up, size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions; reassembly and gating are free by the papers' rule."""
        weights = 4 * self.compress_encoder.weight.numel() + self.compress_decoder.weight.numel()
        weights += 5 * self.encode.weight.numel() + (0 if self.gate is None else self.gate.weight.numel())
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        return 4 * self.k_up**2 * self.decoder_channels * half(height) * half(width)


@register_resampling
class Fade(SemiShift):
    """Semi-shift upsampling, blended with the encoder map by a gate that the decoder map predicts.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, must equal C.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the reassembly neighbourhood, odd.
        compressed: width m that both maps are compressed to.

    Raises:
        UserError: the widths differ, unknown pooling, or a size that cannot be.
    """

    info = dataclasses.replace(
        SemiShift.info,
        name="fade",
        title="FADE",
        equation="up(d) = g x + (1 - g) semi_shift(d), g = sigmoid(conv1x1(d)) repeated over each cell",
        equal_widths=True,
        parameters=f"129C + 14490 at the default options{POOLED}",
    )

    gated = True

    def assembly_macs(self, height: int, width: int) -> int:
        """Of the assembly, and of the blend of four positions."""
        blend = 8 * self.decoder_channels * half(height) * half(width)
        return super().assembly_macs(height, width) + blend


@register_resampling
class FadeLite(Fade):
    """FADE with depth-wise kernel prediction: both maps are compressed to k_up*k_up channels.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, must equal C.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the reassembly neighbourhood, odd.

    Raises:
        UserError: the widths differ, unknown pooling, or a size that cannot be.
    """

    info = dataclasses.replace(
        Fade.info,
        name="fade_lite",
        title="FADE-Lite",
        paper="H. Lu et al., FADE: A Task-Agnostic Upsampling Operator for Encoder-Decoder Architectures, IJCV 2024",
        parameters=f"51C + 276 at the default options{POOLED}",
    )
    depthwise = True

    def __init__(
        self, channels: int, decoder_channels: int | None = None, *, pooling: str = "max", k_up: int = 5
    ) -> None:
        self.check_positive("k_up", k_up, odd=True)
        super().__init__(channels, decoder_channels, pooling=pooling, k_up=k_up, compressed=k_up**2)
