"""The matting network of A2U, over any resampling."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.core.registry import check_options
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import Encoder
from indexnet.networks.encoders.resnet34_11 import NAME, WIDTHS, ResNet34Eleven
from indexnet.networks.layers import ASPP, ASPP_RATES, Head, ResidualBlock, conv_bn, initialize_xavier
from indexnet.networks.spec import Spec, build_resampling, split_spec, strides_encoder

_GUIDES = (64, 64, 128, 256)  # widths of what stages halve, and of what they double, from full resolution down


@register_network
class A2UMatting(Network):
    """U-shaped network on the first eleven blocks of ResNet-34 (Dai et al., CVPR 2021; thesis, chapter 4).

    Context (ASPP, rates 1, 6, 12, 18, separable) at 1/16. Then four times: the decoder map is doubled by a stage, the
    encoder's map of that resolution, brought to its width by a 3x3 convolution, is added, and two residual blocks
    follow; widths 256, 128, 64, 64 to 32. The encoder's maps are those at 1/8, 1/4, 1/2 and the image itself. The head
    is a 3x3 convolution to ``out_channels`` with normalisation and leaky ReLU, and one more 3x3 convolution, without an
    output activation: alpha is not clamped. Every norm is followed by leaky ReLU (0.01) but the last of a residual
    block. In-place normalisation of the published code is batch normalisation here.

    There are two layouts. With ``resampling.pooling=encoder`` the encoder strides and stages only double, guided by the
    convolved maps that are added (rows of Table 4.2 without "-d"). Otherwise stages halve, too, inside the encoder, see
    :class:`ResNet34Eleven`, and are guided by what they halve (rows "-d": ``resampling=a2u``; with
    ``resampling.pooling=max`` the network on which FADE compares operators).

    Args:
        encoder: ``resnet34``, or mapping with ``name`` and ``pretrained`` and ``freeze_bn``.
        resampling: name, or mapping with ``name`` and the operator's options.
        context: ``aspp``, or ``none``: the encoder's map as it is.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.

    Raises:
        UserError: an unknown value, another encoder, or parts that do not fit.
    """

    info = NetworkInfo(
        name="a2u_matting",
        title="A2U matting network (ResNet-34, residual decoder)",
        paper="Dai et al., Learning Affinity-Aware Upsampling for Deep Image Matting (CVPR 2021), Tables 2-6",
        description="Eleven residual blocks of ResNet-34, ASPP at 1/16, residual decoder that adds encoder maps.",
        tasks=("matting",),
    )

    def __init__(
        self,
        encoder: Spec = NAME,
        resampling: Spec = "a2u",
        context: Literal["aspp", "none"] = "aspp",
        in_channels: int = 4,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        if context not in ("aspp", "none"):
            raise UserError(f"context of a2u_matting is 'aspp' or 'none', got {context!r}.")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 16
        name, options = split_spec("encoder", encoder)
        if name != NAME:
            raise UserError(f"network=a2u_matting is built on the blocks of encoder={NAME}; give that, not {name!r}.")
        if options.pop("width", 1) != 1:
            raise UserError(f"encoder.width is no option of {NAME!r} in network=a2u_matting; leave it out.")
        check_options("encoder", ResNet34Eleven, options, skip=("in_channels", "downsampling"))
        strides = strides_encoder(resampling)
        self.encoder: Encoder = ResNet34Eleven(in_channels, "stride" if strides else "stage", **options)
        self.resampling = build_resampling(self.info.name, resampling, _GUIDES, strides=True)
        self.context: nn.Module = (
            ASPP(WIDTHS[-1], _GUIDES[-1], ASPP_RATES[16], activation=nn.LeakyReLU)
            if context == "aspp"
            else nn.Identity()
        )
        self.skips = nn.ModuleList(
            conv_bn(width, guide, 3, activation=nn.LeakyReLU)
            for width, guide in zip((in_channels, *WIDTHS[1:4]), _GUIDES, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(ResidualBlock(wide, narrow), ResidualBlock(narrow, narrow))
            for wide, narrow in zip(_GUIDES, (32, *_GUIDES[:3]), strict=True)
        )
        self.head = Head(32, out_channels, 3, nn.LeakyReLU)
        initialize_xavier(self.context, self.skips, self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float.

        Height and width are multiples of 16 in published results; others work where the resampling takes odd sizes.

        Raises:
            UserError: one image in training mode with ``context="aspp"``.
        """
        x, levels = self.encoder(x, self.resampling.stages)
        x = self.context(x)
        for index in reversed(range(len(levels))):
            level, stage = levels.pop(), self.stage(index)  # its memory is free once it has been used
            skip = self.skips[index](level.skip)
            down = stage.pass_through(x, skip) if stage.strided else level._replace(skip=skip)
            x, skip = stage.up_and_skip(x, down)
            del level, down
            x = self.decoder[index](x + skip)
        return self.head(x)  # type: ignore[no-any-return]
