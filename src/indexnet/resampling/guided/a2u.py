"""A2U: kernels from second-order features of the encoder map, for upsampling and, in pairs, for downsampling.

Source: Y. Dai, H. Lu, C. Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021; thesis of Y. Dai
(Adelaide, 2022), chapter 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import assemble, pad_around, reassemble
from indexnet.resampling.base import Downsampled, OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half, pad_to_even
from indexnet.resampling.pooling import ANY_POOLING, POOLED, POOLINGS, CellMeans, GuidedStage

PAIRED = "paired"


@register_resampling
class A2U(GuidedStage):
    """Affinity-aware upsampling: two encodings of the encoder map are multiplied, and their product weighs kernels.

    Two depth-wise k_en x k_en convolutions U and V with stride 2 encode the map; the inner product of what they give
    over channels, divided by the square root of C, times the weights P gives the logits of each output position's
    k_up x k_up kernel. The guide is the kernels, (N, k_up*k_up, 2h, 2w).

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, default C; any.
        pooling: ``paired``: each 2x2 cell is assembled from its 2k_up x 2k_up neighbours, with kernels of weights of
            their own (softmax alone); or one of :class:`indexnet.resampling.pooling.PooledStage`, which leaves the
            kernels to upsampling.
        dynamics: where weights come from: ``static``, learned; ``hybrid``, P from the map's mean by a 1x1 convolution;
            ``dynamic``, U and V likewise from the map averaged to k_en x k_en.
        channel: whether U and V have a filter for each channel (``cw``) or one for all (``cs``).
        position: whether the four positions of a cell share U and V and have their own P (``shared``), or share P and
            have their own U and V (``point``); the latter not with ``pooling=paired``.
        k_up: size of the upsampling kernels, odd.
        k_en: size of U and V: 5 in the paper, 6 in the released configurations.
        normalization: ``sigmoid+softmax`` (softmax of sigmoid) or ``softmax``, over a kernel; with ``k_up=1`` the
            sigmoid alone.
        activation: of the encodings: ``none``; ``leaky_relu``, after group normalisation in groups of at most 32
            (marked with a dagger in Table 4.2); ``sigmoid``, of the first alone (Table 4.1).

    Raises:
        UserError: an option has an unknown value, or two do not go together.
    """

    up_has_weights = False

    info = OperatorInfo(
        name="a2u",
        title="A2U",
        paper="Y. Dai, H. Lu, C. Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021",
        equation=(
            "up(d)[p] = sum over the k_up x k_up neighbours q of p/2 of softmax_q(sigmoid(P <U x, V x>))[p, q] d[q]"
        ),
        learned=True,
        guided=True,
        downsampling=f"assembly of 2k_up x 2k_up neighbours | {ANY_POOLING}",
        parameters=(
            "s = k_up, k = k_en; P: static 4s^2, else 4s^2(C + 1), twice with pooling=paired; U and V: static and "
            "hybrid 2k^2 (cs), 2k^2 C (cw), dynamic 2C + 2 (cs), 2C^2 + 2C (cw); position=point: U, V four times, P a "
            f"quarter; activation=leaky_relu: + 4C{POOLED}"
        ),
    )
    poolings = (PAIRED, *POOLINGS)

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = PAIRED,
        dynamics: str = "dynamic",
        channel: str = "cs",
        position: str = "shared",
        k_up: int = 3,
        k_en: int = 5,
        normalization: str = "sigmoid+softmax",
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_choice("dynamics", dynamics, ("static", "hybrid", "dynamic"))
        self.check_choice("channel", channel, ("cs", "cw"))
        self.check_choice("position", position, ("shared", "point"))
        self.check_choice("normalization", normalization, ("sigmoid+softmax", "softmax"))
        self.check_choice("activation", activation, ("none", "leaky_relu", "sigmoid"))
        self.check_positive("k_up", k_up, odd=True)
        self.check_positive("k_en", k_en)
        if position == "point" and pooling == PAIRED:
            self.refuse("position=point has no kernels for pooling=paired; give position=shared, or pooling=max")
        self.k_up, self.k_en, self.normalization, self.activation = k_up, k_en, normalization, activation
        self.sets = 4 if position == "point" else 1
        filters = self.sets * (channels if channel == "cw" else 1)
        if dynamics == "dynamic":
            self.first: nn.Module = _PooledConv(channels, filters, k_en)
            self.second: nn.Module = _PooledConv(channels, filters, k_en)
        else:
            self.first, self.second = (_Learned(filters, k_en, 1 / k_en) for _ in range(2))
        positions = 1 if position == "point" else 4
        weights = positions * k_up**2
        std = math.sqrt(2 / (1 + weights))
        self.weight, self.weight_down = (
            None if count == 0 else _Learned(count, 1, std) if dynamics == "static" else _PooledConv(channels, count, 1)
            for count in (weights, 4 * k_up**2 if pooling == PAIRED else 0)
        )
        self.norms: nn.ModuleList | None = None
        if activation == "leaky_relu":
            self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(32, channels), channels) for _ in range(2))

    def affinity(self, x: Tensor) -> Tensor:
        """Return the inner products of both encodings of a map (N, C, 2h, 2w), (N, 1, 1 or 4, h, w), over sqrt(C)."""
        first, second = (self._encode(x, layer(x)) for layer in (self.first, self.second))
        if self.norms is not None:
            first, second = (
                F.leaky_relu(norm(each.flatten(0, 1)), 0.01).unflatten(0, each.shape[:2])
                for norm, each in zip(self.norms, (first, second), strict=True)
            )
        elif self.activation == "sigmoid":
            first = torch.sigmoid(first)
        products = (first * second).sum(2, dtype=full_precision(first.dtype))
        return products.unsqueeze(1) / math.sqrt(self.channels)

    def _encode(self, x: Tensor, filters: Tensor) -> Tensor:
        """Convolve each channel of each image with filters of its own; (N, sets, C, h, w)."""
        n, _, height, width = x.shape
        c, k = self.channels, self.k_en
        padding = (k - 1) // 2 if k % 2 == 0 else k // 2
        filters = filters.unflatten(1, (self.sets, -1)).transpose(1, 2).to(x.dtype)  # (N or 1, C or 1, sets, k, k)
        learned = isinstance(self.first, _Learned)
        exporting = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
        if not learned and exporting:  # where the number of groups must be known
            padded = pad_around(x, padding, "zeros").unsqueeze(2)
            taps = (
                filters[..., i, j, None, None] * padded[..., i : i + height : 2, j : j + width : 2]
                for i in range(k) for j in range(k)
            )  # fmt: skip
            return sum(taps, start=torch.zeros((), dtype=x.dtype)).transpose(1, 2)
        groups = c if learned else n * c
        out = F.conv2d(
            x.reshape(-1, groups, height, width),
            filters.expand(-1, c, -1, -1, -1).reshape(groups * self.sets, 1, k, k),
            stride=2, padding=padding, groups=groups,
        )  # fmt: skip
        return out.reshape(n, c, self.sets, height // 2, width // 2).transpose(1, 2)

    def kernels(self, x: Tensor, affinity: Tensor) -> Tensor:
        """Return upsampling kernels, (N, k_up*k_up, 2h, 2w), summing to 1 over dimension 1 unless k_up is 1."""
        assert self.weight is not None
        weights = self.weight(x).unflatten(1, (self.k_up**2, -1))
        logits = F.pixel_shuffle((weights * affinity).flatten(1, 2), 2)
        if self.normalization != "softmax" or self.k_up == 1:
            logits = torch.sigmoid(logits)
        return (logits if self.k_up == 1 else torch.softmax(logits, 1)).to(x.dtype)

    def kernels_down(self, x: Tensor, affinity: Tensor) -> Tensor:
        """Return downsampling kernels, (N, 4*k_up*k_up, h, w), summing to 1 over dimension 1."""
        assert self.weight_down is not None
        return torch.softmax(self.weight_down(x) * affinity.flatten(1, 2), 1).to(x.dtype)

    def create_guide(self, x: Tensor) -> Tensor:
        return self.kernels(x, self.affinity(x))

    def down(self, x: Tensor) -> Downsampled:
        if self.pooling != PAIRED:
            return super().down(x)
        even = pad_to_even(x)
        affinity = self.affinity(even)
        features = assemble(even, self.kernels_down(even, affinity), 2 * self.k_up, stride=2)
        return Downsampled(features, x, self.kernels(even, affinity), (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        return crop_to(reassemble(x, guide, self.k_up), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of U, V and P, filters that all channels share counted once, and of what predicts them."""
        return self._macs(height, width, self._filters())

    def true_macs(self, height: int, width: int) -> int:
        return self._macs(height, width, self.sets * self.channels)

    def _filters(self) -> int:
        return int(self.first.filters)  # type: ignore[arg-type]

    def _macs(self, height: int, width: int, filters: int) -> int:
        predicted = sum(each.macs() for each in self.children() if isinstance(each, _PooledConv))
        logits = 4 * self.k_up**2 * (1 if self.weight_down is None else 2)
        weights = 2 * self.k_en**2 * filters + logits
        return super().paper_macs(height, width) + weights * half(height) * half(width) + predicted

    def assembly_macs(self, height: int, width: int) -> int:
        """Of the inner products and of the upsampling."""
        taps = self.sets * self.channels + 4 * self.k_up**2 * self.decoder_channels
        return taps * half(height) * half(width)

    def repeated_macs(self, height: int, width: int, channels: int) -> int:
        return 4 * self.k_up**2 * channels * half(height) * half(width)


class _Learned(nn.Module):
    """Filters that are the same for every image."""

    def __init__(self, filters: int, size: int, std: float) -> None:
        super().__init__()
        self.filters = filters
        self.value = nn.Parameter(std * torch.randn(1, filters, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.value


class _PooledConv(nn.Module):
    """Filters of each image, (N, filters, size, size): its map averaged to that size, then a 1x1 convolution."""

    def __init__(self, channels: int, filters: int, size: int) -> None:
        super().__init__()
        self.filters, self.size = filters, size
        self.pool = CellMeans(size)
        self.conv = nn.Conv2d(channels, filters, 1)
        nn.init.xavier_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))  # type: ignore[no-any-return]

    def macs(self) -> int:
        return self.conv.weight.numel() * self.size**2
