"""The deep matting network: SegNet-like, with a VGG16 encoder."""

from __future__ import annotations

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import Encoder, build_encoder
from indexnet.networks.layers import initialize_weights
from indexnet.networks.spec import Spec, build_resampling


@register_network
class DeepMatting(Network):
    """Deep image matting without its refinement stage (Xu et al., CVPR 2017), rows B3 and B4 of the papers.

    VGG16 with batch normalisation, a 7x7 convolution to 4096 channels and a 1x1 convolution back; then one 5x5
    convolution after each of the five doublings, and a 5x5 convolution to the output. Convolutions have biases; ReLU
    follows all but the last; the decoder has no batch normalisation, and the output no activation. With ``max_unpool``
    it is B3, with ``bilinear`` B4.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.
        encoder: a VGG of timm: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        hidden: channels between the 7x7 and the 1x1 convolution; 4096 in the paper.

    Raises:
        UserError: an encoder whose units are not each followed by a halving, or parts that do not fit.
    """

    info = NetworkInfo(
        name="deep_matting",
        title="Deep Image Matting (VGG16, without refinement)",
        paper="Xu et al., Deep Image Matting (CVPR 2017); rows B3 and B4 of Index Networks (TPAMI 2020)",
        description="VGG16-BN with five 2x2 poolings, 7x7 and 1x1 convolutions, 5x5 decoder without fusion.",
        tasks=("matting",),
    )

    def __init__(
        self,
        resampling: Spec = "max_unpool",
        in_channels: int = 4,
        out_channels: int = 1,
        encoder: Spec = "vgg16_bn",
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.encoder: Encoder = build_encoder(encoder, in_channels)
        if not all(self.encoder.halves):
            raise UserError(
                f"deep_matting halves after every unit of its encoder, {self.encoder.name!r} has others between; use a "
                f"VGG such as vgg16_bn, or network matting_unet."
            )
        widths = self.encoder.stage_channels
        self.size_multiple = 2 ** len(widths)
        self.resampling = build_resampling(self.info.name, resampling, widths)
        self.bottom = nn.Sequential(
            nn.Conv2d(widths[-1], hidden, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, widths[-1], 1),
            nn.ReLU(inplace=True),
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, widths[max(stage - 1, 0)], 5, padding=2), nn.ReLU(inplace=True))
            for stage, width in enumerate(widths)
        )
        self.head = nn.Conv2d(widths[0], out_channels, 5, padding=2)
        initialize_weights(self.bottom, self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float."""
        x, levels = self.encoder(x, self.resampling.stages)
        x = self.bottom(x)
        for stage in reversed(range(len(levels))):
            level = levels.pop()  # its memory is free once it has been used
            x = self.stage(stage).up(x, level.guide, level.size)
            del level
            x = self.decoder[stage](x)
        return self.head(x)  # type: ignore[no-any-return]
