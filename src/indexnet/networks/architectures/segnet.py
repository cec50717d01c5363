"""SegNet: VGG16 with batch normalisation and a decoder that mirrors it."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import Encoder, build_encoder
from indexnet.networks.layers import conv_bn, initialize_weights
from indexnet.networks.spec import Spec, build_resampling

_layer = partial(conv_bn, kernel=3, bias=True, activation=nn.ReLU)


@register_network
class SegNet(Network):
    """SegNet as Index Networks (TPAMI 2020) has it.

    VGG16 with batch normalisation; after each of the five doublings 3, 3, 3, 2 and 2 convolutions of 3x3 with bias,
    batch normalisation and ReLU, the first of which brings the map to the width of the encoder at the next resolution
    (the original SegNet narrows with the last one); then a 3x3 convolution with bias to the classes. No skip
    connections.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class; 37 in SUN RGB-D.
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`; one that ends
            with a halving, such as a VGG or a ResNet.

    Raises:
        UserError: no class, an encoder that does not end with a halving, or parts that do not fit.
    """

    info = NetworkInfo(
        name="segnet",
        title="SegNet (VGG16-BN)",
        paper="Badrinarayanan et al., SegNet (TPAMI 2017); Index Networks (TPAMI 2020), Table 6",
        description="VGG16-BN with five halvings, a mirrored 3x3 decoder without skips, 3x3 head.",
        tasks=("segmentation",),
    )

    def __init__(
        self,
        resampling: Spec = "max_unpool",
        in_channels: int = 3,
        classes: int = 37,
        encoder: Spec = "vgg16_bn",
    ) -> None:
        super().__init__()
        if classes < 1:
            raise UserError(f"classes of segnet must be at least 1, got {classes}.")
        self.in_channels, self.out_channels = in_channels, classes
        self.encoder: Encoder = build_encoder(encoder, in_channels)
        if not self.encoder.halves[-1]:
            raise UserError(
                f"segnet doubles what its encoder's last halving gives, but {self.encoder.name!r} has layers after it; "
                f"use a VGG or a ResNet, such as vgg16_bn or resnet34."
            )
        widths = self.encoder.stage_channels
        self.resampling = build_resampling(self.info.name, resampling, widths)
        self.decoder = nn.ModuleList()
        for stage, width in enumerate(widths):
            narrow = widths[max(stage - 1, 0)]
            more = [_layer(narrow, narrow) for _ in range(2 if stage >= 2 else 1)]
            self.decoder.append(nn.Sequential(_layer(width, narrow), *more))
        self.head = nn.Conv2d(widths[0], classes, 3, padding=1)
        initialize_weights(self.decoder, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict logits (N, classes, H, W) of images (N, in_channels, H, W), float; any size of 17 pixels or more."""
        x, levels = self.encoder(x, self.resampling.stages)
        halved = [level for level in levels if level.stage is not None]
        for stage in reversed(range(len(halved))):
            x = self.decoder[stage](self.stage(stage).up(x, halved[stage].guide, halved[stage].size))
        return self.head(x)  # type: ignore[no-any-return]
