"""NAF: attention of the encoder map to its own halved neighbourhood gives the weights of the decoder map's values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half, is_channels_last, pack_cells, unpack_cells
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage, conv_weights

_BASE = 100.0  # of the periods of the rotary embedding


@register_resampling
class Naf(GuidedStage):
    """Pooling, then neighbourhood attention whose weights come from the encoder map alone.

    The guide is the encoder map, (N, C, 2h, 2w); NAF's is the image. Windows are moved inside the map and never padded,
    so that every output value lies within its channel's range. Stands for image-guided upsamplers with attention, such
    as JAFAR, AnyUp and LoftUp; the defaults are smaller than NAF's ``embedding=256, k=9``.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; a multiple of ``heads``.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        embedding: width of queries and keys, a multiple of 16 and of 4 ``heads``.
        heads: of the attention.
        k: odd size of the window; on a smaller map the largest odd one that fits.

    Raises:
        UserError: an unknown value, or a width that does not fit.
    """

    info = OperatorInfo(
        name="naf",
        title="NAF",
        paper="L. Chambon et al., NAF: Zero-Shot Feature Upsampling via Neighborhood Attention Filtering, 2025",
        equation=(
            "up(d)[p] = sum over the k x k values q around p/2 of softmax_q(<Q x[p], mean of Q x over cell q>) d[q]"
        ),
        learned=True,
        guided=True,
        downsampling=ANY_POOLING,
        parameters=f"10Ce + 40e^2 + 26e, e = embedding / 2{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        embedding: int = 64,
        heads: int = 4,
        k: int = 5,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("embedding", embedding)
        self.check_positive("heads", heads)
        self.check_positive("k", k, odd=True)
        if embedding % 16 or embedding % (4 * heads):
            self.refuse(f"embedding={embedding} must be a multiple of 16 and of {4 * heads}, four times heads")
        self.check_divides("heads", heads)
        self.embedding, self.heads, self.k = embedding, heads, k
        self.pixel, self.context = (_encoder(channels, embedding // 2, size) for size in (1, 3))

    def queries(self, guide: Tensor) -> Tensor:
        """Encode a guide (N, C, H, W) with its positions, (N, embedding, H, W)."""
        encoded = torch.cat([self.pixel(guide), self.context(guide)], 1)
        return _rotate(encoded.to(full_precision(encoded.dtype)), self.heads)

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        h, w = x.shape[-2:]
        k = min(self.k, min(h, w) - 1 + min(h, w) % 2)
        queries = self.queries(guide)
        keys = F.avg_pool2d(queries, 2)
        # (N, heads, width of a head, 4, h, w): the four values of a cell look at the same window
        cells = pack_cells(queries).unflatten(1, (self.heads, -1))
        cells = cells / math.sqrt(cells.shape[2])
        rows, columns = (torch.arange(length, device=x.device).sub(k // 2).clamp(0, length - k) for length in (h, w))
        taps = [(rows + i, columns + j) for i in range(k) for j in range(k)]
        logits = [(cells * _at(keys, *tap).unflatten(1, (self.heads, -1)).unsqueeze(3)).sum(2) for tap in taps]
        weights = torch.softmax(torch.stack(logits, 2), 2).to(x.dtype)
        out = sum(
            weights[:, :, number, None] * _at(x, *tap).unflatten(1, (self.heads, -1)).unsqueeze(3)
            for number, tap in enumerate(taps)
        )
        assert isinstance(out, Tensor)
        return crop_to(unpack_cells(out.flatten(1, 2), is_channels_last(x)), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions, all at the high resolution."""
        weights = 4 * conv_weights(self.pixel, self.context)
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        return 4 * self.k**2 * (self.embedding + self.decoder_channels) * half(height) * half(width)


def _at(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x.index_select(2, rows).index_select(3, columns)


class _Reflected(nn.Conv2d):
    """A convolution that reflects the map at its borders, or repeats them where it is too small for that."""

    def __init__(self, channels: int, outputs: int, size: int) -> None:
        super().__init__(channels, outputs, size)
        self.margin = size // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.margin:
            small = min(x.shape[-2:]) <= self.margin
            x = F.pad(x, (self.margin,) * 4, mode="replicate" if small else "reflect")
        return super().forward(x)


def _encoder(channels: int, width: int, size: int) -> nn.Sequential:
    """A convolution, then four times group normalisation, SiLU and a convolution; all of one kernel size."""
    layers: list[nn.Module] = [_Reflected(channels, width, size)]
    for _ in range(4):
        layers += [nn.GroupNorm(8, width), nn.SiLU(), _Reflected(width, width, size)]
    return nn.Sequential(*layers)


def _rotate(x: Tensor, heads: int) -> Tensor:
    """Rotate the channels of each head by angles that grow with the row (first half) and the column (second half)."""
    _, c, height, width = x.shape
    quarter = c // heads // 4
    periods = _BASE ** (torch.arange(quarter, dtype=x.dtype, device=x.device) / quarter)
    angles = [
        2 * math.pi * (2 * (torch.arange(size, dtype=x.dtype, device=x.device) + 0.5) / size - 1) / periods[:, None]
        for size in (height, width)
    ]
    angle = torch.cat(
        [angles[0][:, :, None].expand(-1, -1, width), angles[1][:, None, :].expand(-1, height, -1)]
    ).repeat(2, 1, 1)
    parts: Tensor = x.unflatten(1, (heads, -1))
    first, second = parts.chunk(2, 2)
    turned = torch.cat([-second, first], 2)
    return (parts * torch.cos(angle) + turned * torch.sin(angle)).flatten(1, 2)
