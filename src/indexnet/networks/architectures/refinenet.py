"""Light-weight RefineNet for matting: row B2 of the design table of Index Networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import RELEASED, Encoder, build_encoder
from indexnet.networks.layers import Head, check_odd, conv_bn, initialize_weights, resize_to
from indexnet.networks.spec import Spec, no_resampling
from indexnet.resampling.base import NONE

_WIDTH = 256


class ChainedResidualPooling(nn.Module):
    """Chained residual pooling (Lin et al., RefineNet, CVPR 2017).

    A chain of 5x5 maximum pooling at stride 1 and 1x1 convolution, batch normalisation, ReLU6; what each link gives is
    added to the input.

    Args:
        channels: of input and output.
        links: length of the chain.
        whole_image: whether tiled inference runs it once, on the whole image.
    """

    def __init__(self, channels: int, links: int = 4, whole_image: bool = False) -> None:
        super().__init__()
        self.whole_image = whole_image
        self.links = nn.ModuleList(conv_bn(channels, channels) for _ in range(links))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        y = pooled = x
        for link in self.links:
            pooled = link(F.max_pool2d(pooled, 5, stride=1, padding=2))
            y = y + pooled
        return y


@register_network
class RefineNet(Network):
    """Light-weight RefineNet (Nekrasov et al., BMVC 2018) as the released matting code has it, row B2 of Table 2.

    The encoder halves by its own strides. Every map from a quarter of the resolution down is brought to 256 channels by
    a 1x1 convolution. From the lowest resolution up: maps of one resolution and what comes from below are summed, then
    ReLU6, chained residual pooling of four links, a 1x1 convolution (not after the last), bilinear interpolation to the
    next resolution. The head is a 5x5 convolution to the output, batch normalisation, ReLU6, one more 5x5 convolution,
    and bilinear interpolation to the size of the input. No convolution has a bias, batch normalisation and ReLU6 follow
    each but the last; all interpolation aligns corners. Alpha is not clamped.

    Args:
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        resampling: ``none``, or the mapping ``{"name": "none"}``.
        output_stride: total reduction, 32 or 16.
        decoder_kernel: odd kernel size of the head.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.

    Raises:
        UserError: a resampling is given, an unknown value, or an encoder that does not reduce by 4 on its way.
    """

    info = NetworkInfo(
        name="refinenet",
        title="Light-weight RefineNet (MobileNetV2)",
        paper="Nekrasov et al., Light-Weight RefineNet (BMVC 2018); row B2 of Index Networks (TPAMI 2020), Table 2",
        description="Strided MobileNetV2, chained residual pooling at four resolutions, summed skips, bilinear.",
        tasks=("matting",),
    )

    tile_margin = 480  # the chains look far

    def __init__(
        self,
        encoder: Spec = RELEASED,
        resampling: Spec = NONE,
        output_stride: int = 32,
        decoder_kernel: int = 5,
        in_channels: int = 4,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        self.resampling = no_resampling(self.info.name, resampling)
        check_odd(self.info.name, decoder_kernel)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.encoder: Encoder = build_encoder(encoder, in_channels, output_stride, "stride")
        reductions = [4 * 2**step for step in range(4) if 4 * 2**step <= output_stride]
        self.groups = [self.encoder.units_at(reduction) for reduction in reductions]  # from a quarter down
        if not all(self.groups):
            raise UserError(
                f"refinenet fuses encoder maps at 1/4 to 1/{output_stride} of the resolution, but "
                f"{self.encoder.name!r} lacks one of them; choose another encoder, such as {RELEASED}."
            )
        widths = self.encoder.widths
        self.lateral = nn.ModuleDict(
            {str(unit): conv_bn(widths[unit], _WIDTH) for units in self.groups for unit in units}
        )
        lowest = len(self.groups) - 1  # where a chain sees more than a tile
        self.pooling = nn.ModuleList(
            ChainedResidualPooling(_WIDTH, whole_image=index == lowest) for index in range(len(self.groups))
        )
        self.adapt = nn.ModuleList(conv_bn(_WIDTH, _WIDTH) for _ in self.groups[1:])
        self.head = Head(_WIDTH, out_channels, decoder_kernel)
        initialize_weights(self.lateral, self.pooling, self.adapt, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float, of any size."""
        _, levels = self.encoder(x)
        below: Tensor | None = None
        for index in reversed(range(len(self.groups))):
            maps = [self.lateral[str(unit)](levels[unit].skip) for unit in self.groups[index]]
            if below is not None:
                maps.append(resize_to(self.adapt[index](below), maps[0]))
            below = self.pooling[index](F.relu6(sum(maps[1:], start=maps[0])))
        assert below is not None
        return resize_to(self.head(below), x)
