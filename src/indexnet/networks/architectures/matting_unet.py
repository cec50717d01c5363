"""The matting network of the index-network papers, over any encoder and any resampling."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import RELEASED, Encoder, build_encoder
from indexnet.networks.layers import ASPP, ASPP_RATES, Head, check_odd, conv_bn, initialize_weights
from indexnet.networks.spec import Spec, build_resampling


@register_network
class MattingUNet(Network):
    """Encoder, context module and a decoder that meets every unit of the encoder again (Lu et al., TPAMI 2020, Sec. 5).

    The encoder's units run one after another; where its resolution halves, a stage of the resampling does it. The last
    unit's output goes through the context module to the width of the unit before it. Then, from the last but one unit
    back to the first: where that unit was halved, the stage's ``up`` doubles the decoder map; the map is fused with
    what the unit left (concatenation, sum, or nothing), and a convolution, batch normalisation and ReLU6 bring it to
    the width of the unit before (the first keeps its own). Where a halving is the encoder's last step, its output is
    what the context module sees, and every unit has its decoder layer. With the default encoder this is the published
    network layer by layer; every other encoder follows the same rule.

    The head is a convolution to ``out_channels``, batch normalisation, ReLU6 and one more convolution, without an
    output activation: alpha is not clamped.

    Rows of the papers' tables: B5 ``fusion=none, context=none``; B6 the same with ``bilinear``; B7 ``fusion=none,
    context=aspp``; B8 ``fusion=skip, context=none``; B9 ``skip, aspp``; B10 ``concat, none``; B11 ``concat, aspp``
    (all with ``max_unpool``); HMI, B11-carafe and the index networks are B11 with another resampling.

    Args:
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        resampling: name, or mapping with ``name`` and the operator's options.
        fusion: ``concat``, ``skip`` (element-wise sum) or ``none``.
        context: ``aspp`` (separable, rates 1, 2, 4, 8, or 1, 6, 12, 18 at output stride 16) or ``none`` (1x1
            convolution).
        output_stride: total reduction, 32 or 16.
        decoder_kernel: odd kernel size of decoder and head.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.

    Raises:
        UserError: an unknown value, or parts that do not fit.
    """

    info = NetworkInfo(
        name="matting_unet",
        title="IndexNet matting network",
        paper="Lu et al., Indices Matter (ICCV 2019); Index Networks (TPAMI 2020), Tables 2-4",
        description="MobileNetV2 (or any convolutional timm encoder), ASPP, 5x5 decoder that fuses every encoder unit.",
        tasks=("matting",),
    )

    def __init__(
        self,
        encoder: Spec = RELEASED,
        resampling: Spec = "max_unpool",
        fusion: Literal["concat", "skip", "none"] = "concat",
        context: Literal["aspp", "none"] = "aspp",
        output_stride: int = 32,
        decoder_kernel: int = 5,
        in_channels: int = 4,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        if fusion not in ("concat", "skip", "none"):
            raise UserError(f"fusion of matting_unet is 'concat', 'skip' or 'none', got {fusion!r}.")
        if context not in ("aspp", "none"):
            raise UserError(f"context of matting_unet is 'aspp' or 'none', got {context!r}.")
        check_odd(self.info.name, decoder_kernel)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = output_stride
        self.fusion = fusion
        self.encoder: Encoder = build_encoder(encoder, in_channels, output_stride)
        self.resampling = build_resampling(self.info.name, resampling, self.encoder.stage_channels)

        widths = self.encoder.widths
        met = widths if self.encoder.halves[-1] else widths[:-1]
        self.context: nn.Module = (
            ASPP(widths[-1], met[-1], ASPP_RATES[output_stride], hidden=int(256 * self.encoder.width))
            if context == "aspp"
            else conv_bn(widths[-1], met[-1])
        )
        factor = 2 if fusion == "concat" else 1
        self.decoder = nn.ModuleList(
            conv_bn(factor * width, met[max(unit - 1, 0)], decoder_kernel) for unit, width in enumerate(met)
        )
        self.head = Head(met[0], out_channels, decoder_kernel)
        initialize_weights(self.context, self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float.

        Height and width are multiples of :attr:`size_multiple` in published results; others work where the resampling
        takes odd sizes.

        Raises:
            UserError: one image in training mode with ``context="aspp"``.
        """
        x, levels = self.encoder(x, self.resampling.stages)
        x = self.context(x)
        del levels[len(self.decoder) :]
        for unit in reversed(range(len(self.decoder))):
            level = levels.pop()  # its memory is free once it has been used
            skip = level.skip
            if level.stage is not None and self.fusion in ("concat", "skip"):
                x, skip = self.stage(level.stage).up_and_skip(x, level)
            elif level.stage is not None:
                x = self.stage(level.stage).up(x, level.guide, level.size)
            if self.fusion == "concat":
                x = torch.cat([x, skip], dim=1)
            elif self.fusion == "skip":
                x = x + skip
            del level, skip
            x = self.decoder[unit](x)
        return self.head(x)  # type: ignore[no-any-return]
