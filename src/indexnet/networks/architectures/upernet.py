"""UperNet: pyramid pooling, a feature pyramid, and the fusion of all its levels."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.encoder import Encoder, build_encoder
from indexnet.networks.fusion import AUTO, Doubling
from indexnet.networks.layers import conv_bn, pyramid_means
from indexnet.networks.spec import Spec

_layer = partial(conv_bn, activation=nn.ReLU)
_POOLED_WIDTH = 512
_LEVELS = 3  # maps at 1/4, 1/8 and 1/16, which the decoder doubles to
_interpolate = partial(F.interpolate, mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """Pyramid pooling (Zhao et al., PSPNet, CVPR 2017): averages over a grid of cells, beside the map itself.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.means = pyramid_means()
        self.branches = nn.ModuleList(_layer(in_channels, _POOLED_WIDTH) for _ in self.means)
        self.project = _layer(in_channels + len(self.means) * _POOLED_WIDTH, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        size = x.shape[2:]
        maps = [
            branch(_interpolate(means(x), size=size)) for branch, means in zip(self.branches, self.means, strict=True)
        ]
        return self.project(torch.cat([x, *maps], 1))  # type: ignore[no-any-return]


@register_network
class UperNet(Network):
    """UperNet (Xiao et al., ECCV 2018) as its authors' public code has it, on MobileNetV2 as in Y. Dai's thesis.

    E2 to E5 are the encoder's last maps at 1/4, 1/8, 1/16 and 1/32. Pyramid pooling over 1, 2, 3 and 6 cells a side
    makes P5 of E5: averages are brought to the size of E5, each goes through a 1x1 convolution to 512 channels, and
    with E5 through a 3x3 one to ``width``. The feature pyramid brings it up: at every level the map from below is
    doubled and added to a 1x1 convolution of E4, E3, E2; a 3x3 convolution makes P4, P3, P2 of the sums. They and P5
    are brought to the size of P2 and concatenated; a 3x3 convolution to ``width`` and a 1x1 one to the classes follow.
    No convolution but the last has a bias; batch normalisation and ReLU follow all others. No auxiliary loss.

    An operator takes the place of bilinear interpolation in the pyramid, in the fusion, or in both. In the fusion it
    doubles step by step, without convolutions between, by the guides of the levels on the way: those that the pyramid
    uses, made once. Operators whose upsampling has weights have weights of their own at every place: three in the
    pyramid, six in the fusion. Pyramid pooling stays bilinear.

    The thesis does not say which of two widths it uses, nor which map at 1/16 is E4; here ``width`` is that of the
    code's larger configuration, and E4 the last map of its resolution.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options. ``pooling="encoder"``, as in the thesis:
            the encoder strides; else its last three strided layers keep the size and stages pool before them.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class; 150 in ADE20K.
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        width: channels of the decoder; 512, or 256.
        upsample_at: where the operator doubles: ``none``, ``fpn``, ``mff`` or ``both``; elsewhere it is bilinear.
            ``auto``: none for ``bilinear``, whose fusion is then one interpolation, both for others.

    Raises:
        UserError: an impossible width or class count, or parts that do not fit.
    """

    info = NetworkInfo(
        name="upernet",
        title="UperNet (MobileNetV2)",
        paper="Xiao et al., Unified Perceptual Parsing (ECCV 2018); Dai, thesis, Table 3.8",
        description="Pyramid pooling, feature pyramid and multi-level fusion; logits at a quarter of the resolution.",
        tasks=("segmentation",),
    )
    reduction = 4
    size_multiple = 32

    def __init__(
        self,
        resampling: Spec = "bilinear",
        in_channels: int = 3,
        classes: int = 150,
        encoder: Spec = "mobilenetv2_100",
        width: int = 512,
        upsample_at: str = AUTO,
    ) -> None:
        super().__init__()
        for option, value in (("classes", classes), ("width", width)):
            if value < 1:
                raise UserError(f"network.{option} of upernet must be at least 1, got {value}.")
        self.in_channels, self.out_channels = in_channels, classes
        self.doubling = Doubling.at(self.info.name, upsample_at, resampling)
        self.encoder: Encoder = build_encoder(encoder, in_channels, downsampling="stride")
        self.resampling = self.doubling.resampling(
            self.info.name, resampling, self.encoder, [width] * _LEVELS, [width] * _LEVELS
        )
        skips = self.encoder.guide_channels[-_LEVELS:]
        self.pooling = PyramidPooling(self.encoder.widths[-1], width)
        self.lateral = nn.ModuleList(_layer(skip, width) for skip in skips)
        self.smooth = nn.ModuleList(_layer(width, width, 3) for _ in skips)
        self.fuse = _layer((_LEVELS + 1) * width, width, 3)
        self.head = nn.Conv2d(width, classes, 1)
        self._initialize()

    def _initialize(self) -> None:
        """Draw as the public code does: He normal by fan-in; scales 1, shifts 1e-4."""
        for part in (self.pooling, self.lateral, self.smooth, self.fuse, self.head):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
                    fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
                    nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_in))
                elif isinstance(layer, nn.BatchNorm2d):
                    nn.init.constant_(layer.bias, 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """Predict logits (N, classes, ceil(H/4), ceil(W/4)) of images (N, in_channels, H, W), float, of any size."""
        deepest, levels = self.encoder(x, self.resampling.stages)
        decoding = self.doubling.run(self.resampling, levels, _interpolate)
        top = self.pooling(deepest)
        below, outputs = top, [top]
        for level in reversed(range(_LEVELS)):
            risen, skip = decoding.rise(below, level)
            below = self.lateral[level](skip) + risen
            outputs.insert(0, self.smooth[level](below))
        fused = [outputs[0], *(decoding.fuse(each, level) for level, each in enumerate(outputs[1:]))]
        return self.head(self.fuse(torch.cat(fused, 1)))  # type: ignore[no-any-return]
