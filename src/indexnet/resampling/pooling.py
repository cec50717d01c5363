"""The unguided halves that operators share, and how a guide is made beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.base import Downsampled, ResamplingStage
from indexnet.resampling.functional import blur_pool, full_precision, haar_bands, half, pad_to_even, soft_pool

POOLINGS = ("max", "avg", "conv", "blur", "max_blur", "soft", "lip", "hwd", "encoder")

ANY_POOLING = "any pooling"
"""The fact ``downsampling`` of operators that pool by any of them."""

POOLED = "; and the pooling's"
"""The end of their fact ``parameters``: 9C^2 + C (conv), 9C^2 + 2C (lip), 4C^2 + 3C (hwd), none for the others."""


class PooledStage(ResamplingStage):
    """A stage whose ``down`` pools and whose skip is its input.

    All work on 2x2 cells, with the last row or column repeated where a size is odd. ``max``, ``avg``: of a cell.
    ``conv``: a 3x3 convolution of its own, stride 2, padding 1, with bias, C -> C. ``blur``: a binomial 4x4 filter,
    stride 2; ``max_blur``: the largest of 2x2 at stride 1, then a binomial 3x3 filter, stride 2 (Zhang, Making
    Convolutional Networks Shift-Invariant Again, ICML 2019). ``soft``: the values of a cell weighted with their softmax
    (Stergiou et al., Refining activation downsampling with SoftPool, ICCV 2021). ``lip``: local importance, see
    :class:`LocalImportancePool`. ``hwd``: see :class:`HaarDownsampling`. ``encoder`` leaves it to the encoder, whose
    own convolution before the stage strides; only some networks can.

    Args:
        channels: encoder width C; with ``pooling="encoder"`` that of the map before the encoder's stride.
        decoder_channels: decoder width, default C; any.
        pooling: how a map is downsampled.

    Attributes:
        poolings: what the operator can pool by.

    Raises:
        UserError: unknown pooling.
    """

    poolings: ClassVar[Sequence[str]] = POOLINGS

    def __init__(self, channels: int, decoder_channels: int | None = None, *, pooling: str = "max") -> None:
        super().__init__(channels, decoder_channels)
        self.check_choice("pooling", pooling, self.poolings)
        self.pooling = pooling
        self.strided = pooling == "encoder"
        if pooling == "conv":
            self.reduce: nn.Module = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        elif pooling == "lip":
            self.reduce = LocalImportancePool(channels)
        elif pooling == "hwd":
            self.reduce = HaarDownsampling(channels)

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map (N, C, H, W); skip is ``x``, there is no guide."""
        return Downsampled(self.pool(pad_to_even(x)), x, None, (x.shape[-2], x.shape[-1]))

    def pool(self, x: Tensor) -> Tensor:
        """Halve a map of even sizes, (N, C, 2h, 2w), to (N, C, h, w)."""
        if self.pooling == "max":
            return F.max_pool2d(x, 2)
        if self.pooling == "avg":
            return F.avg_pool2d(x, 2)
        if self.pooling == "blur":
            return blur_pool(x, 4)
        if self.pooling == "max_blur":
            return blur_pool(F.max_pool2d(x, 2, stride=1), 3)
        if self.pooling == "soft":
            return soft_pool(x)
        if self.pooling == "encoder":
            raise RuntimeError("pooling='encoder': the network halves and calls pass_through, not down")
        return self.reduce(x)  # type: ignore[no-any-return]

    def drop_pooling(self) -> None:
        self.pooling, self.strided = "encoder", True
        self._modules.pop("reduce", None)

    def own_convolutions(self) -> Iterator[nn.Conv2d]:
        """Yield the convolutions, without those of the pooling, which start as it says."""
        pooling = {*self.reduce.modules()} if hasattr(self, "reduce") else set()
        return (each for each in self.modules() if isinstance(each, nn.Conv2d) and each not in pooling)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the pooling's own convolutions: a low-resolution position 9*C*C, for LIP 36, for HWD 4."""
        weights = {"conv": 9, "lip": 36, "hwd": 4}.get(self.pooling, 0)
        return weights * self.channels**2 * half(height) * half(width)


class GuidedStage(PooledStage):
    """A stage that pools as :class:`PooledStage` does and hands ``up`` a guide made of the map before the halving.

    The guide is (N, any, 2h, 2w) for a decoder map (N, D, h, w): made of the map with its last row or column repeated
    where a size is odd.
    """

    def create_guide(self, x: Tensor) -> Tensor:
        """Make the guide of an encoder map of even sizes, (N, C, 2h, 2w); the map itself unless an operator says."""
        return x

    def down(self, x: Tensor) -> Downsampled:
        """Halve a map (N, C, H, W); skip is ``x``."""
        even = pad_to_even(x)
        return Downsampled(self.pool(even), x, self.create_guide(even), (x.shape[-2], x.shape[-1]))

    def pass_through(self, x: Tensor, before: Tensor) -> Downsampled:
        return super().pass_through(x, before)._replace(guide=self.create_guide(pad_to_even(before)))


def conv_weights(*modules: nn.Module) -> int:
    """Return how many weights the convolutions of some modules have, biases left out."""
    layers = (layer for module in modules for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return sum(layer.weight.numel() for layer in layers)


class LocalImportancePool(nn.Module):
    """Local importance-based pooling: 3x3 neighbours, stride 2, weighted with the exponential of learned logits.

    Logits are 12 sigmoid(instance norm(convolution)); the last convolution starts at zero, so that the pooling starts
    as the average of the neighbours. Neighbours outside the map have no weight.

    Source: Z. Gao et al., LIP: Local Importance-based Pooling, ICCV 2019.

    Args:
        channels: C.
        bottleneck: width of three convolutions, 1x1, 3x3, 1x1, with ReLU between, in place of the one; None: the one.
    """

    def __init__(self, channels: int, bottleneck: int | None = None) -> None:
        super().__init__()
        widths = [(channels, channels, 3)]
        if bottleneck is not None:
            widths = [(channels, bottleneck, 1), (bottleneck, bottleneck, 3), (bottleneck, channels, 1)]
        layers: list[nn.Module] = []
        for before, after, size in widths:
            layers += [nn.ReLU()] if layers else []
            layers += [
                nn.Conv2d(before, after, size, padding=size // 2, bias=False),
                nn.InstanceNorm2d(after, affine=True),
            ]
        self.logits = nn.Sequential(*layers)
        nn.init.zeros_(layers[-2].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, ceil(H/2), ceil(W/2)) of (N, C, H, W), any sizes but 1x1."""
        return importance_pool(x, 12 * torch.sigmoid(self.logits(x).to(full_precision(x.dtype))))


def importance_pool(x: Tensor, logits: Tensor) -> Tensor:
    """Average the 3x3 neighbours of every second pixel, weighted with exp(logits).

    Args:
        x: (N, C, H, W), floating point.
        logits: the same shape.

    Returns:
        (N, C, ceil(H/2), ceil(W/2)), in the dtype of ``x``.
    """
    logits = logits.to(full_precision(logits.dtype))
    weights = torch.exp(logits - logits.amax((2, 3), keepdim=True).detach())
    total = F.avg_pool2d(x * weights, 3, stride=2, padding=1)
    return (total / F.avg_pool2d(weights, 3, stride=2, padding=1)).to(x.dtype)


class HaarDownsampling(nn.Module):
    """Haar wavelet downsampling: the four bands, a 1x1 convolution 4C -> C with bias, batch normalisation, ReLU.

    Source: G. Xu et al., Haar wavelet downsampling, Pattern Recognition 2023. The order and the signs of the bands are
    those of its code: LL, -HL, -LH, HH.

    Args:
        channels: C.
        out_channels: default C.
    """

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        self.conv = nn.Conv2d(4 * channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, h, w) of (N, C, 2h, 2w)."""
        low, lh, hl, hh = haar_bands(x)
        return F.relu(self.norm(self.conv(torch.cat([low, -hl, -lh, hh], 1))))


class CellMeans(nn.AdaptiveAvgPool2d):
    """Means over a grid of cells x cells; also in ONNX, whose pooling knows no grid over maps of any size.

    Args:
        cells: a side of the grid.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, cells, cells)."""
        if not torch.onnx.is_in_onnx_export():
            return super().forward(x)
        rows, columns = (self._shares(length, x) for length in x.shape[2:])
        return rows @ x @ columns.T

    def _shares(self, length: int, like: Tensor) -> Tensor:
        """Return what each place of a side adds to each cell, (cells, length): cells overlap where they must."""
        place, cell = (torch.arange(count, device=like.device) for count in (length, self.cells))
        first, last = cell * length // self.cells, ((cell + 1) * length - 1) // self.cells
        inside = (place >= first[:, None]) & (place <= last[:, None])
        return inside.to(like.dtype) / (last - first + 1)[:, None]
