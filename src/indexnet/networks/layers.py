"""Layers that several networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError


def conv_bn_relu6(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    """Convolution without bias that keeps the size, batch normalisation, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def separable_conv_bn_relu6(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """Dilated 3x3 depthwise and 1x1 convolution, each with batch normalisation and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU6(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


ASPP_RATES = {32: (2, 4, 8), 16: (6, 12, 18)}
"""Dilations of the branches by output stride."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with depthwise-separable branches (DeepLabv3+, as in the released matting code).

    A 1x1 branch, one dilated branch per rate, a globally pooled branch; concatenation, 1x1 projection, dropout 0.5.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        rates: dilation of the separable 3x3 branches.
        hidden: channels of each branch.

    Attributes:
        whole_image: tiled inference runs this module once, on the whole image, for it looks at all of it.
    """

    whole_image = True

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int], hidden: int = 256) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu6(in_channels, hidden)])
        self.branches.extend(separable_conv_bn_relu6(in_channels, hidden, rate) for rate in rates)
        self.pooled = conv_bn_relu6(in_channels, hidden)
        self.project = conv_bn_relu6(hidden * (len(rates) + 2), out_channels)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w).

        Raises:
            UserError: one image in training mode: the pooled branch normalises over the batch alone.
        """
        if self.training and x.shape[0] == 1:
            raise UserError(
                "context 'aspp' cannot train on a batch of one image per device and step, because its globally pooled "
                "branch normalises over the batch; give at least two: raise training.batch_size (or "
                "budget.max_batch_size) or lower trainer.devices or trainer.accumulate (or network.context=none)."
            )
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        features = [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*features, pooled], dim=1)))  # type: ignore[no-any-return]


def initialize_weights(module: nn.Module) -> None:
    """Draw every convolution of ``module`` from N(0, 2 / (kh * kw * out_channels)); norms become the identity.

    The initialisation of the released matting code (He, fan-out, groups ignored); biases become zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate (N, C, h, w) bilinearly, corners aligned, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def check_odd(network: str, kernel: int) -> None:
    """Refuse a kernel of a decoder that would not keep the size.

    Raises:
        UserError: it is even or not positive.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"decoder_kernel of {network} must be odd and positive, got {kernel}.")
