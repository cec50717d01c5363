"""ReSFU: 3x3 kernels from learned similarities at two levels, over bilinear samples one source pixel apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import pad_around, sample, source_places
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage, conv_weights

_RADIUS, _EPS = 4, 1e-3  # of the guided filter, at half the resolution
_GROUPS = 4  # of the paired convolutions


@register_resampling
class ReSFU(GuidedStage):
    """Pooling, then refreshed similarity-based upsampling: what is compared is first made alike by a guided filter.

    The guide is the encoder map, (N, C, 2h, 2w).

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        embedding: width in which the maps are compared, a multiple of 8.
        hidden: width of what scores the neighbours, a multiple of 8.

    Raises:
        UserError: unknown pooling, or widths that are no positive multiples of 8.
    """

    info = OperatorInfo(
        name="resfu",
        title="ReSFU",
        paper="M. Zhou et al., A Refreshed Similarity-based Upsampler for Direct High-Ratio Feature Upsampling, 2024",
        equation=(
            "up(d)[p] = sum over i of softmax_i(score(x, d)[p, i]) bilinear sample of d at p/2 + i, i in {-1, 0, 1}^2"
        ),
        learned=True,
        guided=True,
        downsampling=ANY_POOLING,
        parameters=f"34(C + D) + 30162 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        embedding: int = 32,
        hidden: int = 128,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        for option, value in (("embedding", embedding), ("hidden", hidden)):
            self.check_positive(option, value)
            if value % 8:
                self.refuse(f"{option}={value} must be a multiple of 8")
        self.norm_encoder, self.norm_decoder = _group_norm(channels), _group_norm(self.decoder_channels)
        self.query = nn.Conv2d(channels, embedding, 1)
        self.key = nn.Conv2d(self.decoder_channels, embedding, 1)
        self.semantic, self.detail = (_PairedScores(embedding, hidden) for _ in range(2))
        for layer in self.own_convolutions():
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def kernels(self, x: Tensor, guide: Tensor) -> Tensor:
        """Predict the weights of the nine neighbours, (N, 9, 2h, 2w), summing to 1 over dimension 1."""
        query, key = self.query(self.norm_encoder(guide)), self.key(self.norm_decoder(x))
        key = F.interpolate(key, scale_factor=2.0, mode="bilinear", align_corners=False)
        scores = self.semantic(key, _guided_filter(query, key)) + self.detail(_smooth(query), query)
        scores = scores.to(full_precision(scores.dtype))
        rows, columns = (
            torch.stack([(places + 2 * i >= 0) & (places + 2 * i < size) for i in (-1, 0, 1)])
            for size in guide.shape[-2:]
            for places in [torch.arange(size, device=x.device)]
        )
        inside = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)
        return torch.softmax(scores.masked_fill(~inside, -1e7), 1)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        kernels = self.kernels(x, guide).to(x.dtype)
        shape = (x.shape[0], 1, *guide.shape[-2:])
        rows, columns = (places.expand(shape) for places in source_places(x))
        out = sum(
            kernels[:, 3 * i + j, None] * sample(x, rows + (i - 1), columns + (j - 1))
            for i in range(3) for j in range(3)
        )  # fmt: skip
        assert isinstance(out, Tensor)
        return crop_to(out, size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the learned convolutions; the Gaussian and the box filters are free by the rule."""
        weights = 4 * self.query.weight.numel() + self.key.weight.numel()
        weights += 4 * (self.semantic.macs() + self.detail.macs())
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        return 36 * self.decoder_channels * half(height) * half(width)


class _PairedScores(nn.Module):
    """Scores of the nine neighbours of a key, two pixels apart, by paired central difference convolution.

    A grouped 3x3 convolution of the differences between the neighbours of the key and the query, then two 1x1 ones.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.weight = nn.Parameter(torch.randn(hidden, width // _GROUPS, 3, 3) * math.sqrt(2 / (9 * hidden)))
        self.bias = nn.Parameter(torch.zeros(1, hidden, 1, 1))
        self.score = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, hidden, 1, groups=_GROUPS), nn.ReLU(), nn.GroupNorm(8, hidden),
            nn.Conv2d(hidden, 9, 1),
        )  # fmt: skip

    def forward(self, key: Tensor, query: Tensor) -> Tensor:
        """Return (N, 9, H, W) of two maps (N, width, H, W)."""
        key, query = self.norm(key), self.norm(query)
        # the convolution of differences is the difference of two convolutions
        near = F.conv2d(pad_around(key, 2, "replicate"), self.weight, dilation=2, groups=_GROUPS)
        own = F.conv2d(query, self.weight.sum((2, 3), keepdim=True), groups=_GROUPS)
        return self.score(near - own + self.bias)  # type: ignore[no-any-return]

    def macs(self) -> int:
        """Multiply-adds at a position."""
        return self.weight.numel() + self.weight.numel() // 9 + conv_weights(self.score)


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(count for count in range(min(32, channels), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


def _smooth(x: Tensor) -> Tensor:
    """Filter each channel with a normalised 3x3 Gaussian of standard deviation 1."""
    row = torch.exp(-(torch.arange(-1, 2, dtype=full_precision(x.dtype), device=x.device) ** 2) / 2)
    kernel = torch.outer(row, row) / row.sum() ** 2
    channels = int(x.shape[1])  # a plain number also while an exporter traces
    return F.conv2d(pad_around(x, 1, "replicate"), kernel.to(x.dtype).expand(channels, 1, 3, 3), groups=channels)


def _guided_filter(guidance: Tensor, x: Tensor) -> Tensor:
    """Fit ``x`` to a guidance of its size linearly in windows at half the resolution, and apply it at the full one."""
    guidance_low, low = (each[..., ::2, ::2].to(full_precision(each.dtype)) for each in (guidance, x))
    mean_guidance, mean = _box(guidance_low), _box(low)
    slope = (_box(guidance_low * low) - mean_guidance * mean) / (_box(guidance_low**2) - mean_guidance**2 + _EPS)
    slope, shift = (
        F.interpolate(_box(each), size=guidance.shape[-2:], mode="bilinear", align_corners=False).to(x.dtype)
        for each in (slope, mean - slope * mean_guidance)
    )
    return slope * guidance + shift


def _box(x: Tensor) -> Tensor:
    """Return the mean of each pixel's window, of the pixels inside the map alone."""
    return F.avg_pool2d(x, 2 * _RADIUS + 1, stride=1, padding=_RADIUS, count_include_pad=False)
