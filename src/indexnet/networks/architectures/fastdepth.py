"""FastDepth: MobileNetV1 and a decoder of depthwise-separable 5x5 convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import FASTDEPTH, Encoder, build_encoder
from indexnet.networks.layers import conv_bn, initialize_weights, separable_conv_bn
from indexnet.networks.spec import Spec, build_resampling, strides_encoder


@register_network
class FastDepth(Network):
    """FastDepth (Wofk et al., ICRA 2019) without skip connections, as Index Networks (TPAMI 2020) has it.

    MobileNetV1; then, once per halving, a 5x5 depthwise and a 1x1 convolution to half the width of the encoder map of
    the next resolution (to its whole width at full resolution), and a doubling; then a 1x1 convolution to the output.
    Batch normalisation and ReLU follow every convolution, the last one too, so that depth is never negative; no
    convolution has a bias.

    Index maps are twice as wide as the decoder where they meet, but at full resolution: index networks that have a map
    per channel average them over neighbouring pairs (``reduction=mean``). The paper does not say what it does.

    Rows of the paper's table: NNConv5 ``resampling=nearest`` with ``pooling=encoder``, P-NNConv5 the same with
    ``pooling=max``; FastDepth-carafe and P-carafe likewise.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options. With ``pooling=encoder`` the encoder's
            own convolutions have stride 2; else they keep the size and a stage halves after their blocks.
        in_channels: channels of the image.
        out_channels: channels of the output.
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.

    Raises:
        UserError: parts that do not fit.
    """

    info = NetworkInfo(
        name="fastdepth",
        title="FastDepth (MobileNetV1, NNConv5)",
        paper="Wofk et al., FastDepth (ICRA 2019); Index Networks (TPAMI 2020), Table 7",
        description="MobileNetV1 with five halvings, depthwise-separable 5x5 decoder without skips, ReLU output.",
        tasks=("depth",),
    )

    def __init__(
        self,
        resampling: Spec = "nearest",
        in_channels: int = 3,
        out_channels: int = 1,
        encoder: Spec = FASTDEPTH,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        strides = strides_encoder(resampling)
        self.encoder: Encoder = build_encoder(encoder, in_channels, downsampling="stride" if strides else "stage")
        widths = self.encoder.stage_channels
        decoder_widths = [width if stage == 0 else max(width // 2, 1) for stage, width in enumerate(widths)]
        self.resampling = build_resampling(
            self.info.name, resampling, self.encoder.guide_channels, decoder_widths, strides=True, reduction="mean"
        )
        before = [*decoder_widths[1:], self.encoder.widths[-1]]
        self.decoder = nn.ModuleList(
            separable_conv_bn(wide, narrow, 5, activation=nn.ReLU)
            for wide, narrow in zip(before, decoder_widths, strict=True)
        )
        self.head = conv_bn(decoder_widths[0], out_channels, activation=nn.ReLU)
        initialize_weights(self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), at least 0, from (N, in_channels, H, W), float, of 17 pixels or more."""
        x, levels = self.encoder(x, self.resampling.stages)
        halved = [level for level in levels if level.stage is not None]
        for stage in reversed(range(len(halved))):
            x = self.stage(stage).up(self.decoder[stage](x), halved[stage].guide, halved[stage].size)
        return self.head(x)  # type: ignore[no-any-return]
