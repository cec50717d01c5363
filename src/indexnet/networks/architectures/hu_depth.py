"""The depth network of Hu et al.: an upward decoder, and the fusion of all maps of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import Encoder, Level, build_encoder
from indexnet.networks.fusion import AUTO, Doubling
from indexnet.networks.layers import conv_bn, initialize_weights
from indexnet.networks.spec import Spec

_layer = partial(conv_bn, activation=nn.ReLU)
_FUSED_WIDTH = 16  # of each map in the fusion


class UpProjection(nn.Module):
    """What follows a doubling (Laina et al., 3DV 2016): 5x5 and 3x3 convolutions beside a 5x5 one, their sum, ReLU.

    Batch normalisation follows each, ReLU the first; no biases.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = _layer(in_channels, out_channels, 5)
        self.second = conv_bn(out_channels, out_channels, 3, activation=nn.Identity)
        self.beside = conv_bn(in_channels, out_channels, 5, activation=nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), at least 0."""
        return F.relu(self.second(self.first(x)) + self.beside(x))


@register_network
class HuDepth(Network):
    """The depth network of Hu et al., WACV 2019, and with the index networks of Y. Dai's thesis.

    S, B1 to B4 are the encoder's maps at 1/2 to 1/32, each before the next halving. The decoder D halves the width of
    B4 by a 1x1 convolution, then doubles four times to the sizes of B3, B2, B1 and S, each time followed by an
    up-projection to half the width. The fusion MFF brings each of B1 to B4 to the size of S and by an up-projection to
    16 channels; a 5x5 convolution follows their concatenation. The refinement R concatenates D and MFF, and has three
    5x5 convolutions, the last one to the output, with a bias. Batch normalisation and ReLU follow all others. The
    output is not clamped.

    An operator takes the place of interpolation in D (``fpn``), in MFF, or in both; in MFF it doubles step by step, by
    the guides of the levels on the way, which are those of D. Operators whose upsampling has weights have weights of
    their own at every place.

    The encoder is not named in the thesis; its baseline agrees with ResNet-50. ``resnet50`` and ``legacy_senet154``
    are the published ones. With ``densenet161`` B1 to B3 are the maps before its transitions (384, 768, 2112 wide),
    where Hu et al. take those after the transitions' convolutions (192, 384, 1056): a wider network than theirs.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options. ``pooling="encoder"``: the encoder
            strides; else what halves S, B1, B2 and B3 keeps the size, and stages pool before it.
        in_channels: channels of the image.
        out_channels: channels of the output.
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`; one whose last
            map is at least 32 wide.
        upsample_at: where the operator doubles: ``none``, ``fpn``, ``mff`` or ``both``; elsewhere it is bilinear.
            ``auto``: none for ``bilinear``, whose fusion is then one interpolation, both for others.
        guide_stem: whether S guides; else doublings to its size are bilinear.
        align_corners: how maps are interpolated, corners aligned as in the PyTorch of the published code, or not.

    Raises:
        UserError: an encoder that is too narrow, or parts that do not fit.
    """

    info = NetworkInfo(
        name="hu_depth",
        title="Hu et al. (ResNet-50)",
        paper="Hu et al., Revisiting Single Image Depth Estimation (WACV 2019); Dai, thesis, Table 3.10",
        description="Up-projections from 1/32 to 1/2, fusion of four encoder maps, refinement; depth at half size.",
        tasks=("depth",),
    )
    reduction = 2

    def __init__(
        self,
        resampling: Spec = "bilinear",
        in_channels: int = 3,
        out_channels: int = 1,
        encoder: Spec = "resnet50",
        upsample_at: str = AUTO,
        guide_stem: bool = True,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.align_corners = in_channels, out_channels, align_corners
        self.doubling = Doubling.at(self.info.name, upsample_at, resampling)
        self.encoder: Encoder = build_encoder(encoder, in_channels, downsampling="stride")
        self.halving = self.encoder.halving_units()
        deepest = self.encoder.widths[-1]
        if deepest < 32:
            raise UserError(
                f"hu_depth divides the width of its encoder's last map by 32, but that of {self.encoder.name!r} has "
                f"{deepest} channels; choose another, such as resnet50 or resnet18."
            )
        maps = [*self.encoder.guide_channels[2:], deepest]  # B1 to B4
        widths = [deepest // 2**k for k in range(1, 6)]
        risen, fused = widths[3::-1], maps
        self.unguided = 0 if guide_stem else 1
        self.resampling = self.doubling.resampling(
            self.info.name, resampling, self.encoder, risen[self.unguided :], fused[self.unguided :]
        )
        self.reduce = _layer(deepest, widths[0])
        self.decoder = nn.ModuleList(UpProjection(widths[k], widths[k + 1]) for k in range(4))
        self.fusion = nn.ModuleList(UpProjection(width, _FUSED_WIDTH) for width in maps)
        self.fuse = _layer(len(maps) * _FUSED_WIDTH, len(maps) * _FUSED_WIDTH, 5)
        width = widths[4] + len(maps) * _FUSED_WIDTH
        self.refine = nn.Sequential(
            _layer(width, width, 5), _layer(width, width, 5), nn.Conv2d(width, out_channels, 5, padding=2)
        )
        initialize_weights(self.reduce, self.decoder, self.fusion, self.fuse, self.refine)

    def _interpolate(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, ceil(H/2), ceil(W/2)) from (N, in_channels, H, W), float, of any size."""
        deepest, levels = self.encoder(x, self.resampling.stages)
        decoding = self.doubling.run(self.resampling, levels, self._interpolate)
        maps = [_before(levels, unit) for unit in self.halving[1:]]  # S, B1, B2, B3
        size, first = (maps[0].shape[2], maps[0].shape[3]), self.unguided
        y = self.reduce(deepest)
        for step, level in enumerate((3, 2, 1, 0)):
            y = decoding.rise(y, level - first)[0] if level >= first else self._interpolate(y, size)
            y = self.decoder[step](y)
        fused = []
        for level, each in enumerate((*maps[1:], deepest)):
            whole = decoding.fuse(each, level - first) if self.doubling.mff and level >= first else each
            whole = whole if whole.shape[2:] == size else self._interpolate(whole, size)
            fused.append(self.fusion[level](whole))
        return self.refine(torch.cat([y, self.fuse(torch.cat(fused, 1))], 1))  # type: ignore[no-any-return]


def _before(levels: Sequence[Level], unit: int) -> Tensor:
    """Return the map that a unit of the encoder halves."""
    return levels[unit if levels[unit].stage is not None else unit - 1].skip
