"""DySample: each output value is sampled at a place of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import sample, source_places
from indexnet.resampling.base import OperatorInfo, WidthError, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half
from indexnet.resampling.pooling import ANY_POOLING, POOLED, PooledStage


@register_resampling
class DySample(PooledStage):
    """Pooling, then bilinear samples at places that the decoder map moves; without kernels.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; a multiple of ``groups``, and of 4 with ``style="pl"``.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        style: ``lp``: offsets by a 1x1 convolution of the decoder map, then pixel shuffle (DySample); ``pl``: pixel
            shuffle first (DySample-S).
        scope: how far places move: ``static``, a quarter of what is predicted, or ``dynamic``, between nothing and a
            half, predicted too (the names with a +).
        groups: of channels, each with places of its own.

    Raises:
        UserError: an unknown value, or a width that the groups or the shuffle cannot divide.
    """

    info = OperatorInfo(
        name="dysample",
        title="DySample",
        paper="W. Liu et al., Learning to Upsample by Learning to Sample, ICCV 2023",
        equation="up(d)[p] = bilinear sample of d at p/2 + s * conv1x1(d)[p], s = 1/4 or sigmoid(conv1x1(d)[p])/2",
        learned=True,
        downsampling=ANY_POOLING,
        parameters=("8gD + 8g (lp), 2gD/4 + 2g (pl); scope=dynamic: + 8gD (lp), 2gD/4 (pl); g groups" + POOLED),
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        style: str = "lp",
        scope: str = "static",
        groups: int = 4,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_choice("style", style, ("lp", "pl"))
        self.check_choice("scope", scope, ("static", "dynamic"))
        self.check_positive("groups", groups)
        self.check_divides("groups", groups)
        if style == "pl" and self.decoder_channels % 4:
            raise WidthError(
                f"the decoder map has {self.decoder_channels} channels, which style='pl' cannot shuffle into cells of "
                "four; give style='lp', or another decoder width."
            )
        self.style, self.groups = style, groups
        width, outputs = (
            (self.decoder_channels, 8 * groups) if style == "lp" else (self.decoder_channels // 4, 2 * groups)
        )
        self.offset = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.offset.weight, std=1e-3)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        self.scope = nn.Conv2d(width, outputs, 1, bias=False) if scope == "dynamic" else None
        if self.scope is not None:
            nn.init.zeros_(self.scope.weight)

    def offsets(self, x: Tensor) -> Tensor:
        """Predict how far the places move, (N, 2, g, 2h, 2w), columns first, in pixels of the decoder map."""
        y = x if self.style == "lp" else F.pixel_shuffle(x, 2)
        scale = 0.25 if self.scope is None else 0.5 * torch.sigmoid(self.scope(y))
        moved: Tensor = scale * self.offset(y)
        if self.style == "lp":
            moved = F.pixel_shuffle(moved, 2)
        return moved.unflatten(1, (2, self.groups)).to(full_precision(x.dtype))  # type: ignore[no-any-return]

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        columns, rows = self.offsets(x).unbind(1)
        own_rows, own_columns = source_places(x)
        return crop_to(sample(x, own_rows + rows, own_columns + columns), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions; sampling is free by the papers' rule."""
        weights = self.offset.weight.numel() * (1 if self.scope is None else 2) * (1 if self.style == "lp" else 4)
        return super().paper_macs(height, width) + weights * half(height) * half(width)
