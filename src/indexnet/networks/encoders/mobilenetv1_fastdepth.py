"""MobileNetV1 as FastDepth cuts it: the resolution halves after whole blocks, 0, 2, 4, 6 and 12 of 14.

timm's ``mobilenetv1_100`` is the same network, but opened at its strides it would be halved at the end of a stage of
blocks; the parameters that the papers print for index networks need the widths after these five blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.encoders import timm_chain
from indexnet.networks.imagenet import IMAGENET_MEAN, IMAGENET_STD
from indexnet.networks.layers import conv_bn, separable_conv_bn

NARROWEST = 32  # channels of the narrowest layer at width 1
TIMM_NAME = "mobilenetv1_100"  # has the same layers, with ImageNet weights
# blocks by their width; a unit is what runs at one resolution, and its last block is where the next one begins
UNITS = ((32,), (64, 128), (128, 256), (256, 512), (512, 512, 512, 512, 512, 1024), (1024,))


def build_units(
    in_channels: int, width: float, output_stride: int, strided: bool
) -> tuple[list[nn.Sequential], list[int], list[bool]]:
    """Build the six units.

    Args:
        in_channels: channels of the image.
        width: factor on every width, truncated to an integer.
        output_stride: 32.
        strided: whether the last block of each unit but the sixth halves the resolution itself.

    Returns:
        The units, their widths, and which of them halves (or, where ``strided`` is off, is followed by a halving).

    Raises:
        UserError: another output stride.
    """
    if output_stride != 32:
        raise UserError(f"encoder 'mobilenetv1_fastdepth' has no output stride {output_stride}; use output_stride=32.")
    units: list[nn.Sequential] = []
    widths: list[int] = []
    halves = [True] * (len(UNITS) - 1) + [False]
    channels = in_channels
    for unit, halving in zip(UNITS, halves, strict=True):
        blocks = []
        for index, base_width in enumerate(unit, 1):
            out, stride = int(base_width * width), 2 if strided and halving and index == len(unit) else 1
            block = separable_conv_bn if units else conv_bn  # the first block is one convolution
            blocks.append(block(channels, out, 3, stride))
            channels = out
        units.append(nn.Sequential(*blocks))
        widths.append(channels)
    return units, widths, halves


def own_names(given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename MobileNetV1 weights to ``units.<unit>.<block>...``, the names of the encoder.

    Known are the names of timm (``blocks.1.0.conv_dw.weight``), of the ImageNet training that FastDepth starts from
    (``model.2.0.weight``), of FastDepth's encoder (``conv2.0.weight``) and the encoder's own. What belongs to none of
    its layers, a classifier or a decoder, is left out.

    Raises:
        UserError: no name is known.
    """
    places = [f"{unit}.{block}" for unit, blocks in enumerate(UNITS) for block in range(len(blocks))]
    # timm's stages have their strided block first
    stages = [0, 1, 3, 5, 11]
    layers = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}
    result: dict[str, Tensor] = {}
    for key, value in given.items():
        block, layer = -1, ""
        if re.fullmatch(r"units\.\d\.\d\.\d\.\w+", key):
            result[key] = value
        elif match := re.fullmatch(r"(?:encoder\.)?(?:model\.|conv)(\d+)\.([0134])\.(\w+)", key):
            block, layer = int(match[1]), f"{match[2]}.{match[3]}"
        elif match := re.fullmatch(r"(conv_stem|bn1)\.(\w+)", key):
            block, layer = 0, f"{0 if match[1] == 'conv_stem' else 1}.{match[2]}"
        elif (match := re.fullmatch(r"blocks\.([0-4])\.(\d)\.(\w+)\.(\w+)", key)) and match[3] in layers:
            block, layer = 1 + stages[int(match[1])] + int(match[2]), f"{layers[match[3]]}.{match[4]}"
        if 0 <= block < len(places):
            result[f"units.{places[block]}.{layer}"] = value
    if not result:
        raise UserError(
            f"{source} holds no MobileNetV1 weights by names of timm or FastDepth (first name: "
            f"{next(iter(given), 'none')!r})."
        )
    return result


def imagenet_state(width: float) -> dict[str, Tensor]:
    """Fetch timm's ImageNet weights and fit them to images that are normalised as everywhere here.

    timm trained them on images of mean 0.5 and deviation 0.5. The difference to ImageNet's own mean and deviation goes
    into the first convolution and into the mean that the batch normalisation after it subtracts, so that, away from the
    border, the network computes what it was trained to.

    Raises:
        UserError: there are none for this width, or they cannot be reached.
    """
    if width != 1.0:
        raise UserError(
            f"encoder 'mobilenetv1_fastdepth' has no ImageNet weights at width {width}; give pretrained=PATH with a "
            f"file of this width, or pretrained=false."
        )
    state = timm_chain.pretrained_state(TIMM_NAME, "mobilenetv1_fastdepth")
    weight, mean = state["conv_stem.weight"], state["bn1.running_mean"]
    scale = weight.new_tensor(IMAGENET_STD) / 0.5
    offset = (weight.new_tensor(IMAGENET_MEAN) - 0.5) / 0.5
    state["bn1.running_mean"] = mean - (weight.sum((2, 3)) * offset).sum(1)
    state["conv_stem.weight"] = weight * scale[:, None, None]
    return state
