"""MobileNetV2 exactly as the released matting code builds it.

Two things set it apart from the usual one. Zeros are padded to the *input* of an inverted residual, before its 1x1
expansion, so that at the border the depthwise convolution sees what batch normalisation and ReLU6 make of zero, and the
expansion runs on the larger map (the printed 4.08 GFLOPs need that). And widths are scaled by truncation, not rounded
to multiples of eight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.encoders import timm_chain
from indexnet.networks.layers import conv_bn

NARROWEST = 16  # channels of the narrowest layer at width 1
TIMM_NAME = "mobilenetv2_100"  # has the same layers, with ImageNet weights
# expansion, width, blocks, and whether its first block halves the resolution in the classification network
LAYERS = (
    (1, 16, 1, False),
    (6, 24, 2, True),
    (6, 32, 3, True),
    (6, 64, 4, True),
    (6, 96, 3, False),
    (6, 160, 3, True),
    (6, 320, 1, False),
)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection, with zeros padded before the expansion.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
        expansion: hidden channels per input channel; 1 leaves the expansion out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.padding = dilation
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *(conv_bn(in_channels, hidden) if expansion != 1 else ()),
            nn.Conv2d(hidden, hidden, 3, stride, dilation=dilation, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H/stride), ceil(W/stride))."""
        y: Tensor = self.conv(F.pad(x, (self.padding,) * 4))
        return x + y if self.residual else y


def build_units(
    in_channels: int, width: float, output_stride: int, strided: bool
) -> tuple[list[nn.Sequential], list[int], list[bool]]:
    """Build layer0 .. layer7.

    Args:
        in_channels: channels of the image.
        width: factor on every width, truncated to an integer.
        output_stride: 32, or 16: the last halving is left out and what follows it is dilated by 2.
        strided: whether the layers halve the resolution themselves.

    Returns:
        The layers, their widths, and which of them (or, where ``strided`` is off, what comes after them) halves.
    """
    widths = [int(32 * width)]
    halves = [True]
    layers = [conv_bn(in_channels, widths[0], 3, 2 if strided else 1)]
    reduction, dilation = 2, 1
    for expansion, base_width, count, halving in LAYERS:
        out = int(base_width * width)
        dilate = halving and reduction == output_stride
        halving = halving and not dilate
        blocks: list[nn.Module] = []
        for block in range(count):
            # the block that would halve keeps its dilation: its input has not been thinned yet
            stride = 2 if strided and halving and block == 0 else 1
            rate = dilation * 2 if dilate and block > 0 else dilation
            blocks.append(InvertedResidual(widths[-1] if block == 0 else out, out, stride, rate, expansion))
        if dilate:
            dilation *= 2
        reduction *= 2 if halving else 1
        layers.append(nn.Sequential(*blocks))
        widths.append(out)
        halves.append(halving)
    return layers, widths, halves


def own_names(given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename MobileNetV2 weights to ``units.<layer>...``, the names of the encoder.

    Known are the names of the released matting code (``layer2.0.conv.3.weight``), of the CSAIL file that it starts from
    (``features.2.conv.3.weight``), of torchvision (``features.2.conv.1.0.weight``) and of timm
    (``blocks.1.0.conv_dw.weight``). What belongs to none of the layers is left out.

    Raises:
        UserError: no name is known.
    """
    places = [(0, 0)] + [(layer, block) for layer, spec in enumerate(LAYERS, start=1) for block in range(spec[2])]
    nested = any(re.match(r"features\.1\.conv\.0\.0\.", key) for key in given)
    timm_blocks = {"conv_pw": 0, "bn1": 1, "conv_dw": 3, "bn2": 4, "conv_pwl": 6, "bn3": 7}
    timm_first = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}
    torchvision = {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}
    torchvision_first = {"0.0": 0, "0.1": 1, "1": 3, "2": 4}

    def own_name(key: str) -> str | None:
        if match := re.fullmatch(r"layer(\d)\.(.+)", key):
            return f"units.{match[1]}.{match[2]}"
        if match := re.fullmatch(r"features\.0\.([01]\.\w+)", key):
            return f"units.0.{match[1]}"
        if (match := re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)\.(\w+)", key)) and int(match[1]) < len(places):
            (layer, block), position = places[int(match[1])], match[2]
            if nested:
                position = str((torchvision_first if layer == 1 else torchvision).get(position, position))
            return f"units.{layer}.{block}.conv.{position}.{match[3]}"
        if match := re.fullmatch(r"(conv_stem|bn1)\.(\w+)", key):
            return f"units.0.{0 if match[1] == 'conv_stem' else 1}.{match[2]}"
        if match := re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", key):
            position_of = timm_first if match[1] == "0" else timm_blocks
            if match[3] in position_of:
                return f"units.{int(match[1]) + 1}.{match[2]}.conv.{position_of[match[3]]}.{match[4]}"
        return None

    result = {name: value for key, value in given.items() if (name := own_name(key)) is not None}
    if not result:
        raise UserError(
            f"{source} holds no MobileNetV2 weights by names of the CSAIL file, torchvision, timm or the released "
            f"matting code (first name: {next(iter(given), 'none')!r})."
        )
    return result


def imagenet_state(width: float) -> dict[str, Tensor]:
    """Fetch timm's ImageNet weights for this variant.

    Raises:
        UserError: there are none for this width, or they cannot be reached.
    """
    if width != 1.0:
        raise UserError(
            f"encoder 'mobilenetv2_released' has no ImageNet weights at width {width} (timm rounds its widths to "
            f"multiples of eight); give pretrained=PATH with a file of this width, or pretrained=false."
        )
    return timm_chain.pretrained_state(TIMM_NAME, "mobilenetv2_released")
