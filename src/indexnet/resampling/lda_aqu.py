"""LDA-AQU: local attention of the decoder map's own interpolation to its deformed neighbourhood."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import sample
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half, in_format, is_channels_last
from indexnet.resampling.pooling import ANY_POOLING, POOLED, PooledStage


@register_resampling
class LdaAqu(PooledStage):
    """Pooling, then local deformable attention: each output value is a weighted sum of k x k samples at moved places.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; a multiple of ``reduction`` times ``groups`` and ``heads``.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        reduction: D over the width c of queries and keys.
        heads: of the attention.
        groups: of channels, each with places of its own, which the same weights predict.
        k: odd size of the neighbourhood, in pixels of the output.
        k_offset: odd size of the convolution that predicts the places.
        reach: how far a place moves at most, in pixels of the output.
        bias: whether keys get a learned part for each neighbour.

    Raises:
        UserError: an unknown value, or a width that groups or heads do not divide.
    """

    info = OperatorInfo(
        name="lda_aqu",
        title="LDA-AQU",
        paper="Z. Du et al., LDA-AQU: Adaptive Query-guided Upsampling via Local Deformable Attention, ACM MM 2024",
        equation=(
            "up(d)[p] = sum over places q of softmax_q(<Q d[p/2], K d[q] + r[q]>) d[q], "
            "q = p/2 + neighbour + f(Q d[p/2])"
        ),
        learned=True,
        downsampling=ANY_POOLING,
        parameters=("2Dc + 2D + 173e + 9c + 18 at the default options, c = D/4, e = D/8" + POOLED),
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        reduction: int = 4,
        heads: int = 1,
        groups: int = 2,
        k: int = 3,
        k_offset: int = 3,
        reach: float = 11.0,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        for option, value in (("reduction", reduction), ("heads", heads), ("groups", groups)):
            self.check_positive(option, value)
        for option, value in (("k", k), ("k_offset", k_offset)):
            self.check_positive(option, value, odd=True)
        self.check_choice("bias", bias, (True, False))
        if isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 <= reach < math.inf:
            self.refuse(f"reach={reach!r} must be a finite number, at least 0")
        self.check_divides("reduction * groups", reduction * groups)
        self.check_divides("reduction * heads", reduction * heads)
        self.heads, self.groups, self.k, self.reach = heads, groups, k, float(reach)
        width = self.decoder_channels // reduction
        part = width // groups
        self.norm = nn.LayerNorm(self.decoder_channels)
        self.query = nn.Conv2d(self.decoder_channels, width, 1, bias=False)
        self.key = nn.Conv2d(self.decoder_channels, width, 1, bias=False)
        self.offset_encode = nn.Conv2d(part, part, 3, padding=1, groups=part, bias=False)
        self.offset_norm = nn.LayerNorm(part)
        self.offset = nn.Conv2d(part, 2 * k**2, k_offset, padding=k_offset // 2)
        self.bias = nn.Parameter(torch.empty(heads, k**2, width // heads)) if bias else None
        for layer in (self.query, self.key, self.offset_encode):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        if self.bias is not None:
            nn.init.trunc_normal_(self.bias, std=0.02)

    def offsets(self, query: Tensor) -> Tensor:
        """Predict how far the places move, (N, g, k*k, 2, H, W), rows first, in pixels of the output."""
        parts = self.offset_encode(query.unflatten(1, (self.groups, -1)).flatten(0, 1))
        parts = F.gelu(self.offset_norm(parts.movedim(1, -1)).movedim(3, 1))
        moved = self.reach * torch.tanh(self.offset(parts).to(full_precision(query.dtype)))
        return moved.reshape(query.shape[0], self.groups, self.k**2, 2, *query.shape[-2:])

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        h, w = x.shape[-2:]
        normalised = self.norm(x.movedim(1, -1)).movedim(3, 1)
        query = F.interpolate(self.query(normalised), scale_factor=2.0, mode="bilinear", align_corners=True)
        key = self.key(normalised)
        moved = self.offsets(query)
        # corners are aligned: the first and the last pixel of both maps lie on each other
        own_rows = torch.arange(2 * h, device=x.device)[:, None]
        own_columns = torch.arange(2 * w, device=x.device)
        reach = self.k // 2
        places = [
            (
                (own_rows + tap // self.k - reach + moved[:, :, tap, 0]) * ((h - 1) / (2 * h - 1)),
                (own_columns + tap % self.k - reach + moved[:, :, tap, 1]) * ((w - 1) / (2 * w - 1)),
            )
            for tap in range(self.k**2)
        ]
        query = query.unflatten(1, (self.heads, -1))
        scale = query.shape[2] ** -0.5
        logits = []
        for tap, place in enumerate(places):
            near = sample(key, *place, padding="zeros").unflatten(1, (self.heads, -1))
            if self.bias is not None:
                near = near + self.bias[:, tap, :, None, None]
            logits.append(scale * (query * near).sum(2, dtype=moved.dtype))
        weights = torch.softmax(torch.stack(logits, 2), 2).to(x.dtype)
        out = sum(
            weights[:, :, tap, None] * sample(x, *place, padding="zeros").unflatten(1, (self.heads, -1))
            for tap, place in enumerate(places)
        )
        assert isinstance(out, Tensor)
        return crop_to(in_format(out.flatten(1, 2), is_channels_last(x)), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions, those that the groups share counted once."""
        return self._macs(height, width, 1)

    def true_macs(self, height: int, width: int) -> int:
        return self._macs(height, width, self.groups)

    def _macs(self, height: int, width: int, groups: int) -> int:
        weights = self.query.weight.numel() + self.key.weight.numel()
        weights += 4 * groups * (self.offset_encode.weight.numel() + self.offset.weight.numel())
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        taps = 4 * self.k**2 * (self.key.weight.shape[0] + self.decoder_channels)
        return taps * half(height) * half(width)
