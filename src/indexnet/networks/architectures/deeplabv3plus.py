"""DeepLabv3+ for matting: row B1 of the design table of Index Networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import RELEASED, Encoder, build_encoder
from indexnet.networks.layers import ASPP, ASPP_RATES, Head, check_odd, conv_bn, initialize_weights, resize_to
from indexnet.networks.spec import Spec, no_resampling
from indexnet.resampling.base import NONE

_WIDTH = 256  # of the context module and the decoder
_LOW_WIDTH = 48  # of the encoder map that the decoder meets again


@register_network
class DeepLabV3Plus(Network):
    """DeepLabv3+ (Chen et al., ECCV 2018) as the released matting code has it, row B1 of Index Networks' Table 2.

    The encoder halves by its own strides. Its last map goes through ASPP to 256 channels and is resized to the last map
    at a quarter of the resolution, which a 1x1 convolution has brought to 48 channels; both are concatenated, two 5x5
    convolutions to 256 channels follow, then a 1x1 convolution to the output, batch normalisation, ReLU6, one more 1x1
    convolution, and bilinear interpolation to the size of the input. No convolution has a bias, batch normalisation and
    ReLU6 follow each but the last; all interpolation aligns corners. Alpha is not clamped.

    Args:
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        resampling: ``none``, or the mapping ``{"name": "none"}``.
        output_stride: total reduction, 16 or 32.
        decoder_kernel: odd kernel size of the decoder.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.

    Raises:
        UserError: a resampling is given, an unknown value, or an encoder that does not reduce by 4 on its way.
    """

    info = NetworkInfo(
        name="deeplabv3plus",
        title="DeepLabv3+ (MobileNetV2)",
        paper="Chen et al., DeepLabv3+ (ECCV 2018); row B1 of Index Networks (TPAMI 2020), Table 2",
        description="Strided MobileNetV2 at output stride 16, ASPP, one skip at 1/4, bilinear interpolation.",
        tasks=("matting",),
    )

    def __init__(
        self,
        encoder: Spec = RELEASED,
        resampling: Spec = NONE,
        output_stride: int = 16,
        decoder_kernel: int = 5,
        in_channels: int = 4,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        self.resampling = no_resampling(self.info.name, resampling)
        check_odd(self.info.name, decoder_kernel)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.encoder: Encoder = build_encoder(encoder, in_channels, output_stride, "stride")
        units = self.encoder.units_at(4)
        if not units:
            raise UserError(
                f"deeplabv3plus meets an encoder map at a quarter of the resolution again, but {self.encoder.name!r} "
                f"has none; choose another encoder, such as {RELEASED}."
            )
        self.low_unit = units[-1]
        widths = self.encoder.widths
        self.context = ASPP(widths[-1], _WIDTH, ASPP_RATES[output_stride])
        self.low = conv_bn(widths[self.low_unit], _LOW_WIDTH)
        self.decoder = nn.Sequential(
            conv_bn(_WIDTH + _LOW_WIDTH, _WIDTH, decoder_kernel), conv_bn(_WIDTH, _WIDTH, decoder_kernel)
        )
        self.head = Head(_WIDTH, out_channels, 1)
        initialize_weights(self.context, self.low, self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float, of any size.

        Raises:
            UserError: one image in training mode.
        """
        deepest, levels = self.encoder(x)
        low = self.low(levels[self.low_unit].skip)
        y = torch.cat([resize_to(self.context(deepest), low), low], dim=1)
        return resize_to(self.head(self.decoder(y)), x)
